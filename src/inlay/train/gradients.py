"""Gradients of the plain loss by timestep bin, for weightings and analyses that compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from inlay.errors import ConfigError, TrainingError
from inlay.objective.live import draw_in_bin
from inlay.randomness import derive, stream
from inlay.train.precision import Precision, autocast

if TYPE_CHECKING:
    from inlay.train.diffusion import Diffusion

SCALE = 2.0**10
"""By which losses are multiplied before the backward pass, so that small gradients survive half precision. A power of
two: it changes no other bits."""


class Compared:
    """The trained numbers that are compared: those of some parameters, and of these a sample where they are many."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], patterns: tuple[str, ...], numbers: int, seed: int):
        """Choose.

        Args:
            parameters: what trains, by name.
            patterns: shell patterns for names; none for all.
            numbers: how many numbers at most.
            seed: the run's seed.

        Raises:
            ConfigError: no parameter has such a name.
        """
        chosen = {
            name: parameter
            for name, parameter in parameters.items()
            if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
        }
        if not chosen:
            raise ConfigError(
                f"objective.weighting.parameters={list(patterns)}: no trained parameter has such a name; there are, "
                f"for instance, {', '.join(list(parameters)[:3])}"
            )
        self.parameters = list(chosen.values())
        sizes = [parameter.numel() for parameter in self.parameters]
        self.count = min(sum(sizes), numbers)
        """P, how many numbers are compared."""
        self._places: list[Tensor] | None = None
        if sum(sizes) > numbers:
            # With replacement: without would need a permutation of all of them.
            drawn = torch.randint(sum(sizes), (numbers,), generator=stream(seed, "compared numbers")).sort().values
            ends = torch.tensor(sizes).cumsum(0)
            counts = torch.searchsorted(drawn, ends).diff(prepend=torch.tensor([0])).tolist()
            firsts = (ends - torch.tensor(sizes)).tolist()
            self._places = [
                (part - first).to(parameter.device)
                for part, first, parameter in zip(drawn.split(counts), firsts, self.parameters, strict=True)
            ]

    def gradient(self, loss: Tensor) -> Tensor:
        """Return the gradient of a loss in the compared numbers, float32 [P]; the parameters' own ``grad`` stays."""
        found = torch.autograd.grad(loss * SCALE, self.parameters, allow_unused=True)
        rows = []
        for index, (gradient, parameter) in enumerate(zip(found, self.parameters, strict=True)):
            flat = (torch.zeros_like(parameter) if gradient is None else gradient).reshape(-1)
            rows.append((flat if self._places is None else flat[self._places[index]]).float() / SCALE)
        return torch.cat(rows)


def bin_gradients(
    diffusion: Diffusion,
    compared: Compared,
    bins: int,
    samples: int,
    at_once: int,
    draw: int,
    accelerator: Accelerator,
    precision: Precision,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Measure the gradient of the plain loss in every timestep bin; every process returns the same.

    The processes share the bins. Each bin has pictures, noise and timesteps of its own, so that what two bins have in
    common is not due to a common draw.

    Args:
        diffusion: objective and data.
        compared: which numbers.
        bins: K, equal parts of the path.
        samples: pictures a bin.
        at_once: how many of them go through the denoiser together.
        draw: number of this measurement; another one sees other pictures.
        accelerator: of the run.
        precision: of the run.
        progress: told (bins done, in all), as far as this process does them.

    Returns:
        float32 [K, P], finite.

    Raises:
        TrainingError: a gradient is not finite; nothing has changed.
    """
    gradients = torch.zeros(bins, compared.count, device=accelerator.device)
    own = range(accelerator.process_index, bins, accelerator.num_processes)
    for done, index in enumerate(own, start=1):
        generator = stream(diffusion.seed, "bin timesteps", draw, index)
        timesteps = draw_in_bin(generator, index, bins, samples, diffusion.path.timesteps)
        torch.manual_seed(derive(diffusion.seed, "bin dropout", draw, index))
        for number, part in enumerate(timesteps.split(at_once)):
            with autocast(accelerator.device, precision):
                errors = diffusion.errors(part, derive(diffusion.seed, "bin pictures", draw, index), number)
            gradients[index] += compared.gradient(errors.sum() / samples)
        if progress is not None:
            progress(done, len(own))
    if accelerator.num_processes > 1:
        reduced = accelerator.reduce(gradients, "sum")
        assert isinstance(reduced, Tensor)
        gradients = reduced
    broken = (~gradients.isfinite().all(1)).nonzero().flatten().tolist()
    if broken:
        raise TrainingError(
            f"the gradient of timestep bin {broken[0]} of {bins} is not finite; lower train.learning_rate, or use "
            "train.precision=fp32 or bf16"
        )
    return gradients
