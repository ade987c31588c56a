"""Optimizers: what turns gradients into steps, how much they keep, and where the weights to be used are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from inlay.errors import ConfigError
from inlay.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import nn

Decay = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class OptimizerSettings(Settings, ABC):
    """An optimizer and its settings, as a run file states them."""

    name: str
    """What run files call it."""

    learning_rate: ClassVar[float | None] = None
    """Default of `train.learning_rate`, whatever the method; None where the method's own holds."""
    averages: ClassVar[bool] = False
    """Whether the weights to be used are an average that it keeps itself."""
    finds_rate: ClassVar[bool] = False
    """Whether it finds the learning rate itself, on which the one that is given is a factor."""
    package: ClassVar[str | None] = None
    """Whose it is, where torch does not have it."""

    @abstractmethod
    def make(self, groups: Mapping[float, Mapping[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        """Return optimizers that together step all parameters, each with a group of them for each learning rate.

        Args:
            groups: the parameters by name, for each learning rate before the schedule.
        """

    @abstractmethod
    def kept(self, name: str, shape: Sequence[int]) -> int:
        """Return how many numbers it keeps of a parameter, at most."""

    def check_installed(self) -> None:
        """Refuse an optimizer whose package is missing.

        Raises:
            ConfigError: with what to install.
        """
        if self.package is not None and find_spec(self.package) is None:
            raise ConfigError(
                f"train.optimizer={self.name}: its package {self.package} is not installed; "
                "pip install 'inlay[optimizers]'"
            )


class AdamW(OptimizerSettings):
    """AdamW (arXiv 1711.05101), torch's own."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the running mean and of the running mean square of gradients."""
    eps: Positive = 1e-8
    """Added to the root mean square."""
    weight_decay: Decay = 1e-2
    """Decoupled decay a step, times the learning rate."""

    def make(self, groups: Mapping[float, Mapping[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        import torch

        options = self.model_dump(exclude={"name"})
        return [torch.optim.AdamW(_torch_groups(groups), fused=True, **options)]

    def kept(self, name: str, shape: Sequence[int]) -> int:
        return 2 * math.prod(shape)


class Adafactor(OptimizerSettings):
    """Adafactor (arXiv 1804.04235), torch's own, without momentum: of a matrix it keeps the mean squares of rows and
    columns only, of a convolution those of each window. Tuning all of Stable Diffusion 1, it keeps 1.7 GiB where AdamW
    keeps 6.4."""

    name: Literal["adafactor"] = "adafactor"
    beta2_decay: Annotated[float, Field(lt=0)] = -0.8
    """The mean squares keep a share 1 - t^this at step t."""
    clip_threshold: Positive = 1.0
    """d, the largest root mean square of a tensor's step before the learning rate."""
    scale_parameter: bool = False
    """Make steps relative to the size of each tensor, as published. Without it AdamW's learning rates hold, and what
    begins at zero moves as fast as the rest."""
    weight_decay: Decay = 1e-2
    """Decoupled decay a step, times the learning rate."""

    def make(self, groups: Mapping[float, Mapping[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        import torch

        # With a floor of 1 under a tensor's size, weights, which are smaller, all take steps of the learning rate.
        floor = 1e-3 if self.scale_parameter else 1.0
        return [
            torch.optim.Adafactor(
                _torch_groups(groups),
                beta2_decay=self.beta2_decay,
                eps=(None, floor),
                d=self.clip_threshold,
                weight_decay=self.weight_decay,
            )
        ]

    def kept(self, name: str, shape: Sequence[int]) -> int:
        count = math.prod(shape)
        return count // shape[-1] + count // shape[-2] if len(shape) > 1 else count


class Muon(OptimizerSettings):
    """Muon for matrices, torch's own: steps along the momentum with all its singular values made alike. Embeddings,
    convolutions, norms and biases take AdamW's steps. All are of the size of AdamW's (arXiv 2502.16982), so that its
    learning rates hold."""

    name: Literal["muon"] = "muon"
    momentum: Share = 0.95
    """Decay of the running mean of gradients."""
    nesterov: bool = True
    """Look one step of the momentum ahead."""
    ns_steps: Annotated[int, Field(ge=1, lt=100)] = 5
    """Iterations of Newton and Schulz."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """AdamW's, for what is no matrix."""
    weight_decay: Decay = 1e-2
    """Decoupled decay a step, times the learning rate."""

    def make(self, groups: Mapping[float, Mapping[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        import torch

        made: list[torch.optim.Optimizer] = []
        matrices, others = (
            {
                rate: {name: one for name, one in group.items() if is_matrix(name, one.shape) == wanted}
                for rate, group in groups.items()
            }
            for wanted in (True, False)
        )
        if any(matrices.values()):
            options = self.model_dump(exclude={"name", "betas"})
            made.append(torch.optim.Muon(_torch_groups(matrices), adjust_lr_fn="match_rms_adamw", **options))
        if any(others.values()):
            options = self.model_dump(include={"betas", "weight_decay"})
            made.append(torch.optim.AdamW(_torch_groups(others), fused=True, **options))
        return made

    def kept(self, name: str, shape: Sequence[int]) -> int:
        return (1 if is_matrix(name, shape) else 2) * math.prod(shape)


class Prodigy(OptimizerSettings):
    """Prodigy (arXiv 2306.06101), of the package prodigyopt: AdamW that finds its learning rate while it trains.
    `train.learning_rate` is a factor on that, 1 by default; the rate that is shown is the product."""

    name: Literal["prodigy"] = "prodigy"
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the running mean and of the running mean square of gradients."""
    eps: Positive = 1e-8
    """Added to the root mean square, times the rate that was found."""
    weight_decay: Decay = 1e-2
    """Decoupled decay a step, times the learning rate."""
    d0: Positive = 1e-6
    """The first guess of the rate, from which it grows."""
    d_coef: Positive = 1.0
    """Factor on the rate as it is estimated: what to change when it is too high or too low."""
    growth_rate: Annotated[float, Field(gt=1)] | None = None
    """Largest growth of the rate a step; null for any."""
    use_bias_correction: bool = True
    """Adam's correction of the first steps; on, as the authors advise for diffusion models, off in the publication."""
    safeguard_warmup: bool = True
    """Keep the rate from being overestimated during a warm-up of the learning rate; likewise."""
    slice_p: Annotated[int, Field(ge=1)] = 1
    """Estimate the rate from every so manyth number; 11 needs half as much memory."""

    learning_rate: ClassVar[float | None] = 1.0
    finds_rate: ClassVar[bool] = True
    package: ClassVar[str | None] = "prodigyopt"

    def make(self, groups: Mapping[float, Mapping[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        from prodigyopt import Prodigy as Theirs

        options = self.model_dump(exclude={"name", "growth_rate"})
        with redirect_stdout(None):  # it prints that its decay is decoupled
            return [Theirs(_torch_groups(groups), growth_rate=self.growth_rate or math.inf, **options)]

    def kept(self, name: str, shape: Sequence[int]) -> int:
        count = math.prod(shape)
        return 2 * count + 2 * -(-count // self.slice_p)


class ScheduleFree(OptimizerSettings):
    """AdamW without a schedule (arXiv 2405.15682), of the package schedulefree: gradients are taken at a mixture of the
    weights and their average, and the average is the result, at every step as good as a schedule that ended there."""

    name: Literal["schedule_free"] = "schedule_free"
    betas: tuple[Annotated[float, Field(gt=0, lt=1)], Share] = (0.9, 0.999)
    """Share of the average where gradients are taken, and decay of the running mean square of gradients."""
    eps: Positive = 1e-8
    """Added to the root mean square."""
    weight_decay: Decay = 1e-2
    """Decay a step, times the learning rate, at the place where gradients are taken."""
    r: Annotated[float, Field(ge=0)] = 0.0
    """The average weighs step t with t to this power."""
    weight_lr_power: Annotated[float, Field(ge=0)] = 2.0
    """And with the learning rate to this power, so that a warm-up counts little."""

    averages: ClassVar[bool] = True
    package: ClassVar[str | None] = "schedulefree"

    def make(self, groups: Mapping[float, Mapping[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        from schedulefree import AdamWScheduleFree

        made = AdamWScheduleFree(_torch_groups(groups), **self.model_dump(exclude={"name"}))
        made.train()
        return [made]

    def kept(self, name: str, shape: Sequence[int]) -> int:
        return 2 * math.prod(shape)


def _named(value: Any) -> Any:
    """Let an optimizer be given by its name alone, and AdamW's settings without a name."""
    if isinstance(value, str):
        return {"name": value}
    return {"name": "adamw", **value} if isinstance(value, dict) else value


Optimizer = Annotated[
    AdamW | Adafactor | Muon | Prodigy | ScheduleFree, Field(discriminator="name"), BeforeValidator(_named)
]
"""The value of `train.optimizer`."""


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether Muon steps a parameter: matrices that are no embeddings by their name, nor belong to that of the time."""
    return len(shape) == 2 and "embedding" not in name


def _torch_groups(groups: Mapping[float, Mapping[str, nn.Parameter]]) -> list[dict[str, Any]]:
    return [{"params": list(group.values()), "lr": rate} for rate, group in groups.items()]


def found_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate that Prodigy has found so far, before the factor on it."""
    return float(optimizer.param_groups[0]["d"])


@contextmanager
def at_average(optimizer: Any) -> Iterator[None]:
    """Put the average that a schedule-free optimizer keeps in place inside a ``with`` block.

    Afterwards the weights are back bit for bit, so that looking changes nothing.
    """
    import torch

    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    aside = [weight.detach().clone() for weight in weights]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for weight, kept in zip(weights, aside, strict=True):
                weight.copy_(kept)
