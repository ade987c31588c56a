"""Importance sampling of timesteps by the second moment of their latest losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inlay.errors import ArtifactError
from inlay.objective.timesteps import LossSecondMoment


class LossHistory:
    """The latest losses of every bin of timesteps, and how often to draw each timestep because of them.

    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, equation 18.
    """

    def __init__(self, settings: LossSecondMoment, timesteps: int):
        """Begin without losses.

        Args:
            settings: bins, memory and uniform share.
            timesteps: T of the path; with fewer of them than bins, each is a bin of its own.
        """
        self.settings = settings
        bins = min(settings.bins, timesteps)
        self.bin_of = np.arange(timesteps) * bins // timesteps
        """int64 [T]: the bin of each timestep."""
        self._losses = np.zeros((bins, settings.history), np.float32)
        self._seen = np.zeros(bins, np.int64)
        self._probabilities: Tensor | None = None

    @property
    def warm(self) -> bool:
        """Whether every bin has its losses."""
        return bool((self._seen >= self.settings.history).all())

    def probabilities(self) -> Tensor:
        """Return how likely each timestep is drawn: float64 [T] on the CPU, positive, of sum 1."""
        if self._probabilities is None:
            count = len(self.bin_of)
            rms = np.sqrt(np.square(self._losses, dtype=np.float64).mean(1))[self.bin_of]
            uniform = np.full(count, 1 / count)
            share = self.settings.uniform_share
            known = rms / rms.sum() if self.warm and rms.sum() > 0 else uniform
            self._probabilities = torch.from_numpy((1 - share) * known + share * uniform)
        return self._probabilities

    def draw(self, generator: torch.Generator, batch: int) -> Tensor:
        """Draw timesteps: int64 [B] on the CPU."""
        ends = self.probabilities().cumsum(0)
        uniform = self.settings.uniform(generator, batch)
        # The last of the ends is 1 but for rounding.
        return torch.searchsorted(ends, uniform, right=True).clamp(max=len(self.bin_of) - 1)

    def factors(self) -> Tensor:
        """Return by what a loss at each timestep is multiplied to keep the expectation: 1 / (T p), float32 [T]."""
        return (1 / (len(self.bin_of) * self.probabilities())).float()

    def observe(self, t: Sequence[int], losses: Sequence[float]) -> None:
        """Take in losses as they were before :meth:`factors`, the oldest of each bin falling out.

        Args:
            t: timesteps.
            losses: as many, finite.
        """
        for timestep, loss in zip(t, losses, strict=True):
            index = self.bin_of[timestep]
            self._losses[index, self._seen[index] % self.settings.history] = loss
            self._seen[index] += 1
        self._probabilities = None

    def state(self) -> dict[str, Tensor]:
        """Return everything that is remembered, as copies."""
        return {"losses": torch.tensor(self._losses), "seen": torch.tensor(self._seen)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            ArtifactError: it is of another number of bins or losses.
        """
        if state["losses"].shape != self._losses.shape:
            raise ArtifactError(
                f"the saved losses of timesteps have shape {tuple(state['losses'].shape)}, here {self._losses.shape}"
            )
        self._losses, self._seen = state["losses"].numpy().copy(), state["seen"].numpy().copy()
        self._probabilities = None
