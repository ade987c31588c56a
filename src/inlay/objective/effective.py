"""How much of training goes to each timestep: weighting and sampling together, and against the plain loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inlay.objective.path import Path
from inlay.objective.settings import Objective
from inlay.objective.timesteps import LossSecondMoment, TimestepSampling

QUANTILES = 256
"""Evenly spread numbers a timestep that stand for all those that a sampler may draw."""


@dataclass(frozen=True)
class EffectiveWeights:
    """The weight of every timestep in the expected loss, and a few numbers that sum it up."""

    weights: tuple[float, ...]
    """T numbers: weight on the prediction's error times how often the timestep is drawn; plain and uniform are 1."""
    mean: float
    """Of the weights: by what the gradient is larger than the plain one, all errors being equal."""
    effective_timesteps: float
    """(sum w)^2 / sum w^2: T for equal weights, 1 if a single timestep had all the weight (Kish 1965)."""
    shares: tuple[float, float, float]
    """Of the whole weight: the clean, the middle and the noisy third of the timesteps."""
    moved: float
    """Share of the weight that lies at other timesteps than under equal weights, from 0 to 1."""
    changes: str | None
    """What changes while training, and is shown as it is at the start; None for nothing."""

    def sentence(self) -> str:
        """Say what this changes against the plain loss with uniform timesteps."""
        count = len(self.weights)
        clean, middle, noisy = (f"{100 * share:.0f} %" for share in self.shares)
        thirds = f"{clean} clean, {middle} middle, {noisy} noisy third"
        if self.moved < 5e-4:
            said = "as the plain loss: every timestep counts the same"
        else:
            said = (
                f"moves {100 * self.moved:.3g} % of the weight to other timesteps than the plain loss ({thirds}); "
                f"{self.effective_timesteps:.0f} of {count} timesteps effective, mean weight {self.mean:.3g}"
            )
        return said if self.changes is None else f"{said}; {self.changes}"


def effective_weights(objective: Objective, path: Path) -> EffectiveWeights:
    """Return what an objective gives to each timestep, at the start where it changes while training.

    Args:
        objective: resolved against the base.
        path: its noise path.

    Raises:
        ConfigError: they do not fit.
    """
    weights = objective.weight_table(path).double() * path.timesteps * density(objective.timesteps, path)
    total = weights.sum()
    shares = [part.sum().item() / total.item() for part in weights.tensor_split(3)]
    changes = []
    if objective.adapts:
        changes.append(f"{objective.weighting.name} finds its weights while training, from this")
    if isinstance(objective.timesteps, LossSecondMoment):
        least = min(objective.timesteps.bins, path.timesteps) * objective.timesteps.history
        changes.append(
            f"after {least:,} pictures at the earliest timesteps are drawn by their losses, at unchanged weight"
        )
    return EffectiveWeights(
        weights=tuple(weights.tolist()),
        mean=weights.mean().item(),
        effective_timesteps=(total**2 / weights.square().sum()).item(),
        shares=(shares[0], shares[1], shares[2]),
        moved=(weights / total - 1 / path.timesteps).abs().sum().item() / 2,
        changes="; ".join(changes) or None,
    )


def density(sampling: TimestepSampling, path: Path) -> Tensor:
    """Return how likely each timestep is drawn, float64 [T], of sum 1; importance sampling counts as uniform."""
    count = QUANTILES * path.timesteps
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return sampling.quantile(uniform, path).bincount(minlength=path.timesteps).double() / count
