"""From noise to a sample along a path: the solvers of EDM and DPM-Solver++, for every prediction.

Both ask for a prediction only at timesteps of the path, so that a model sees none that it was not trained on. Shapes as
in :mod:`inlay.objective.path`; s = sigma_t / alpha_t is EDM's noise level, infinite where there is no signal.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from inlay.errors import ConfigError
from inlay.objective.path import Path
from inlay.objective.prediction import Prediction

Predict = Callable[[Tensor, Tensor], Tensor]
"""Noisy samples [B, ...] and one timestep, int64 [] => the model's output [B, ...]."""

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""The noise levels between which EDM samples (Karras et al. 2022, arXiv 2206.00364, table 1)."""
RHO = 7.0
"""How much denser its steps are at low noise."""


class _Solver(ABC):
    def __init__(self, path: Path, prediction: Prediction, steps: int):
        """Bind a solver.

        Args:
            path: the path on which the model denoises.
            prediction: what the model outputs.
            steps: steps along the path.

        Raises:
            ConfigError: the path has no such prediction.
        """
        path.require(prediction)
        self.path, self.steps = path, steps
        self.prediction: Prediction = prediction
        at = torch.arange(path.timesteps)
        self._alpha, self._sigma = path.alpha(at), path.sigma(at)
        self._level = self._sigma / self._alpha
        self.timesteps = list(dict.fromkeys(self._spread()))
        """Where the steps begin, noisiest first; steps that fall on one timestep are one."""

    @abstractmethod
    def _spread(self) -> list[int]:
        """Return the timesteps at which steps begin, noisiest first."""

    @property
    @abstractmethod
    def calls(self) -> int:
        """How often it asks for a prediction."""

    @abstractmethod
    def __call__(self, predict: Predict, noise: Tensor, tell: Callable[[], None]) -> Tensor:
        """Return samples for noise of variance 1, [B, ...].

        Args:
            predict: the model, guidance included.
            noise: float32 or float64 [B, ...].
            tell: called after every prediction.
        """

    def _clean(self, predict: Predict, noisy: Tensor, timestep: int, tell: Callable[[], None]) -> Tensor:
        output = predict(noisy, torch.tensor(timestep, device=noisy.device)).to(noisy.dtype)
        tell()
        return self.path.to_clean(self.prediction, output, noisy, torch.tensor([timestep]))


class Heun(_Solver):
    """EDM's second-order solver (arXiv 2206.00364, algorithm 1 without churn).

    Steps lie evenly in s^(1/7) from 80, or the path's own greatest noise level, to 0.002, or its least; each at the
    nearest timestep.
    """

    def _spread(self) -> list[int]:
        finite = self._level[self._level.isfinite()]
        low, high = finite.min().clamp(min=SIGMA_MIN).item(), finite.max().clamp(max=SIGMA_MAX).item()
        share = torch.linspace(0, 1, self.steps, dtype=torch.float64)
        wanted = (high ** (1 / RHO) + share * (low ** (1 / RHO) - high ** (1 / RHO))) ** RHO
        # In logarithms, in which neighbouring timesteps are about equally far from each other.
        distances = (finite.log()[None] - wanted.log()[:, None]).abs()
        return distances.argmin(1).tolist()

    @property
    def calls(self) -> int:
        return 2 * len(self.timesteps) - 1

    def __call__(self, predict: Predict, noise: Tensor, tell: Callable[[], None]) -> Tensor:
        timesteps = self.timesteps
        levels = [*self._level[timesteps].tolist(), 0.0]
        sample = noise * levels[0]  # y = noisy / alpha, in which dy / ds = (y - clean) / s
        for number, timestep in enumerate(timesteps):
            level, following = levels[number : number + 2]
            slope = (sample - self._clean_at(predict, sample, timestep, tell)) / level
            there = sample + (following - level) * slope
            if following > 0:
                other = (there - self._clean_at(predict, there, timesteps[number + 1], tell)) / following
                there = sample + (following - level) * (slope + other) / 2
            sample = there
        return sample

    def _clean_at(self, predict: Predict, sample: Tensor, timestep: int, tell: Callable[[], None]) -> Tensor:
        return self._clean(predict, sample * self._alpha[timestep].item(), timestep, tell)


class Dpm(_Solver):
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2); its last step is of first order.

    Steps are evenly spread over the timesteps, as diffusers spreads them. A model of the noise begins where s is 80,
    because what it says of the clean sample beyond that is its error many times over.
    """

    def _spread(self) -> list[int]:
        last = self.path.timesteps - 1
        if self.prediction == "epsilon":
            last = int((self._level <= SIGMA_MAX).sum().item()) - 1
        if last < 0:
            raise ConfigError("a model of the noise cannot be sampled on a path that begins with hardly any signal")
        return torch.linspace(last, 0, self.steps + 1, dtype=torch.float64).round().long()[:-1].tolist()

    @property
    def calls(self) -> int:
        return len(self.timesteps)

    def __call__(self, predict: Predict, noise: Tensor, tell: Callable[[], None]) -> Tensor:
        timesteps = self.timesteps
        alphas = [*self._alpha[timesteps].tolist(), 1.0]
        sigmas = [*self._sigma[timesteps].tolist(), 0.0]
        # Half the log signal-to-noise ratio; infinite at both ends.
        logs = [_log(alpha) - _log(sigma) for alpha, sigma in zip(alphas, sigmas, strict=True)]
        sample = noise if alphas[0] == 0 else noise * math.hypot(alphas[0], sigmas[0])
        earlier: Tensor | None = None
        for number, timestep in enumerate(timesteps):
            clean = self._clean(predict, sample, timestep, tell)
            step = logs[number + 1] - logs[number]
            direction = clean
            if earlier is not None and math.isfinite(step):
                before = logs[number] - logs[number - 1]
                # Before the first step from pure noise lies an infinite one, over which nothing changes.
                direction = clean + step / (2 * before) * (clean - earlier)
            sample = sigmas[number + 1] / sigmas[number] * sample - alphas[number + 1] * math.expm1(-step) * direction
            earlier = clean
        return sample


SOLVERS = {"dpm": Dpm, "heun": Heun}
"""Solvers by the name that run files give them."""


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
