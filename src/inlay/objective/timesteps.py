"""How training draws timesteps. Every sampler is a quantile function applied to uniform numbers.

Drawing a timestep more often acts on the expected loss like a larger weight there, at less variance; the two
multiply. Levels run from 0 (clean) to 1 (noise) along the path's index, so that level u means timestep floor(u T).
Importing this module needs no torch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from inlay.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inlay.objective.path import Path


class _Sampler(Settings):
    stratified: bool = False
    """Spread each batch evenly over the distribution: one draw from each of as many equally likely parts as the batch
    has samples, in random order. Every sample's own distribution stays; the loss fluctuates less."""

    def sample(self, generator: torch.Generator, batch: int, path: Path) -> Tensor:
        """Draw timesteps.

        Args:
            generator: a CPU generator.
            batch: B, how many.
            path: gives the number of timesteps T and, for `laplace`, the signal-to-noise ratios.

        Returns:
            int64 [B] on the CPU, in [0, T).
        """
        return self.quantile(self.uniform(generator, batch), path)

    def uniform(self, generator: torch.Generator, batch: int) -> Tensor:
        """Return the numbers in [0, 1) that become timesteps: float64 [B] on the CPU."""
        import torch

        uniform = torch.rand(batch, generator=generator, dtype=torch.float64)
        if self.stratified:
            # In random order: neighbours in a batch, such as an image and its prior image, must not share a part.
            uniform = (torch.randperm(batch, generator=generator) + uniform) / batch
        return uniform

    @abstractmethod
    def quantile(self, uniform: Tensor, path: Path) -> Tensor:
        """Map numbers in [0, 1) to timesteps in [0, T), never decreasing; float64 [B] => int64 [B]."""


class Uniform(_Sampler):
    """Every timestep equally often."""

    name: Literal["uniform"] = "uniform"

    def quantile(self, uniform: Tensor, path: Path) -> Tensor:
        """Return floor(u T)."""
        return _timestep(uniform, path)


class Within(_Sampler):
    """Only the timesteps of one part of the path, each equally often; the others are not trained."""

    name: Literal["within"] = "within"
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Level at which the part begins."""
    end: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Level at which it ends, itself not included."""

    @model_validator(mode="after")
    def _not_empty(self) -> Within:
        if self.start >= self.end:
            raise ValueError(f"start={self.start} must lie below end={self.end}")
        return self

    def quantile(self, uniform: Tensor, path: Path) -> Tensor:
        """Return a timestep of ceil(start T) ... ceil(end T) - 1, or floor(start T) where there is none."""
        # Rounded, so that 0.1 of 1000 timesteps are 100 whatever the last bits of 0.1 are.
        first, end = (math.ceil(round(level * path.timesteps, 6)) for level in (self.start, self.end))
        if first == end:
            first -= 1
        return (first + uniform * (end - first)).long().clamp(max=end - 1)


class LogitNormal(_Sampler):
    """Level = sigmoid of a normal number: the middle of the path more often (Esser et al. 2024, arXiv 2403.03206)."""

    name: Literal["logit_normal"] = "logit_normal"
    mean: float = 0.0
    """Mean of the normal number; above 0 favours noise."""
    std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation of the normal number; smaller concentrates on the middle."""

    def quantile(self, uniform: Tensor, path: Path) -> Tensor:
        """Return the timestep at sigmoid(mean + std * inverse normal distribution(u))."""
        import torch

        return _timestep((self.mean + self.std * torch.special.ndtri(uniform)).sigmoid(), path)


class Mode(_Sampler):
    """Heavy-tailed preference for the middle or the ends (Esser et al. 2024, arXiv 2403.03206, equation 20)."""

    name: Literal["mode"] = "mode"
    scale: Annotated[float, Field(ge=-1, le=2 / (math.pi - 2))] = 1.29
    """Above 0 favours the middle, below 0 the ends, 0 is uniform."""

    def quantile(self, uniform: Tensor, path: Path) -> Tensor:
        """Return the timestep at f(1 - u), f(u) = 1 - u - scale (cos^2(pi u / 2) - 1 + u)."""
        falling = 1 - uniform
        level = uniform - self.scale * ((falling * math.pi / 2).cos() ** 2 - uniform)
        return _timestep(level.clamp(min=0), path)


class Shifted(_Sampler):
    """Level = shift u / (1 + (shift - 1) u): as resolution-dependent shifting (Esser et al. 2024, arXiv 2403.03206)."""

    name: Literal["shifted"] = "shifted"
    shift: Annotated[float, Field(gt=0)] = 3.0
    """Above 1 favours noise, below 1 the clean end, 1 is uniform."""

    def quantile(self, uniform: Tensor, path: Path) -> Tensor:
        """Return the timestep at shift u / (1 + (shift - 1) u)."""
        return _timestep(self.shift * uniform / (1 + (self.shift - 1) * uniform), path)


class Laplace(_Sampler):
    """The log signal-to-noise ratio follows a Laplace distribution (Hang et al. 2024, arXiv 2407.03297).

    The timestep with the nearest log signal-to-noise ratio is taken; what falls off the path goes to its ends.
    """

    name: Literal["laplace"] = "laplace"
    mean: float = 0.0
    """The preferred log signal-to-noise ratio."""
    scale: Annotated[float, Field(gt=0)] = 0.5
    """Mean distance from the preferred value."""

    def quantile(self, uniform: Tensor, path: Path) -> Tensor:
        """Return the timestep whose log signal-to-noise ratio is nearest to mean - scale * (Laplace quantile of u)."""
        import torch

        centred = uniform - 0.5
        noise_to_signal = -self.mean - self.scale * centred.sign() * torch.log1p(-2 * centred.abs())
        # The log of 0 at zero terminal SNR makes the last border infinite: that timestep is then never drawn.
        levels = -path.snr(torch.arange(path.timesteps)).log()
        return torch.searchsorted((levels[1:] + levels[:-1]) / 2, noise_to_signal)


class LossSecondMoment(_Sampler):
    """Timesteps in proportion to the root mean square of their latest losses (Nichol and Dhariwal 2102.09672, eq. 18).

    Each loss is divided by how much more often its timestep is drawn, so that the expected loss stays what it is under
    `uniform` and only its fluctuation falls. Uniform until every bin has its losses.
    """

    name: Literal["loss_second_moment"] = "loss_second_moment"
    history: Annotated[int, Field(ge=1)] = 10
    """Latest losses that are remembered of each bin."""
    bins: Annotated[int, Field(ge=1)] = 100
    """Equal parts of the path that share their losses; the publication has one a timestep, which takes about 23,000
    pictures to fill."""
    uniform_share: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Share of the draws that stays uniform, so that no timestep is forgotten."""

    def quantile(self, uniform: Tensor, path: Path) -> Tensor:
        """Return floor(u T): how timesteps are drawn before there are losses."""
        return _timestep(uniform, path)


TimestepSampling = Annotated[
    Uniform | Within | LogitNormal | Mode | Shifted | Laplace | LossSecondMoment, Field(discriminator="name")
]


def _timestep(level: Tensor, path: Path) -> Tensor:
    """Return floor(level T) as int64 [B]; the level 1, which rounding can reach, belongs to the last timestep."""
    return (level * path.timesteps).long().clamp(max=path.timesteps - 1)
