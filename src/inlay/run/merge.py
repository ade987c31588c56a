"""Adapter files into a base, or into one LoRA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inlay.artifacts.blueprint import Blueprint, fitting
from inlay.artifacts.formats import FORMATS, recognise
from inlay.artifacts.layers import Difference, Updates
from inlay.artifacts.merge import Source
from inlay.base.stable_diffusion import StableDiffusion
from inlay.errors import ArtifactError, ConfigError
from inlay.run.directory import PIPELINE, RUN_FILE
from inlay.run.record import read_record
from inlay.run.weights import weighted_layers


@dataclass(frozen=True)
class Folded:
    """How much merging changed a base."""

    change: float
    """Frobenius norm of the change of all weights and biases together."""
    relative_change: float
    """The same over the norm of the changed tensors as they were."""
    layers: int
    """Layers that were changed."""


def files_of(target: Path) -> list[Path]:
    """Return the adapter files that a name means: the file itself, or those of a finished run directory.

    Raises:
        ConfigError: a run directory has none.
    """
    if not (target / RUN_FILE).is_file():
        return [target]
    record = read_record(target)
    if record is None or record["status"] != "done":
        raise ConfigError(f"{target}: the run has not finished; go on with `inlay tune {target / RUN_FILE}`")
    if record["files"] == [PIPELINE]:
        raise ConfigError(
            f"{target}: the run's result is a whole model, {target / PIPELINE}, and no file beside a base; "
            "`inlay extract` makes a LoRA of it"
        )
    return [target / name for name in record["files"]]


def read_sources(targets: Sequence[Path], strengths: Sequence[float], blueprints: Sequence[Blueprint]) -> list[Source]:
    """Read files, or the files of runs, each with the strength of its target.

    Raises:
        ConfigError: a strength is no finite number, or there is not one for each target.
        ArtifactError: a file cannot be read, fits none of the models, or cannot be folded into weights.
    """
    if len(strengths) != len(targets):
        raise ConfigError(f"--weights gives {len(strengths)} numbers for {len(targets)} files; give one for each")
    unusable = [strength for strength in strengths if not math.isfinite(strength)]
    if unusable:
        raise ConfigError(f"--weights: {unusable[0]} is no finite number")
    found = []
    for target, strength in zip(targets, strengths, strict=True):
        for path in files_of(target):
            one = FORMATS[recognise(path)]
            contents = one.read(path, blueprints)
            if not isinstance(contents, Updates):
                raise ArtifactError(
                    f"{path}: {one.contents} cannot be folded into weights; keep the file beside the base"
                )
            found.append(Source(str(path), contents, strength))
    return found


def merge_into(base: StableDiffusion, sources: Sequence[Source]) -> Folded:
    """Add the weighted sum of all changes to a base's own weights, each change being relative to the base as it was.

    Raises:
        ArtifactError: a file does not fit the base; nothing has changed then.
    """
    layers = weighted_layers(base)
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    for source in sources:
        fitting(source.updates.layers, [Blueprint(base.name, shapes)], source.name)
        absent = [
            name
            for name, update in source.updates.layers.items()
            if isinstance(update, Difference) and update.bias is not None and not _has_bias(layers[name], update.bias)
        ]
        if absent:
            raise ArtifactError(f"{source.name}: changes a bias of {absent[0]}, and {base.name} has no such bias there")
    names = list(dict.fromkeys(name for source in sources for name in source.updates.layers))
    squares, before = 0.0, 0.0
    with torch.no_grad():
        for name in names:
            for parameter, change in _changes(layers[name], name, sources):
                before += float(parameter.double().square().sum())
                squares += float(change.square().sum())
                parameter.data = (parameter.double() + change).to(parameter.dtype)
    return Folded(math.sqrt(squares), math.sqrt(squares / before) if before else 0.0, len(names))


def _changes(layer: Any, name: str, sources: Sequence[Source]) -> list[tuple[nn.Parameter, Tensor]]:
    """Return a layer's parameters that change, and by how much in all, in float64."""
    weight: nn.Parameter = layer.weight
    on_weight, on_bias = torch.zeros_like(weight, dtype=torch.float64), None
    for source in sources:
        update = source.updates.layers.get(name)
        if update is None:
            continue
        if update.extent is not None:
            on_weight += update.changed(weight.detach(), source.strength).double() - weight.double()
        if isinstance(update, Difference) and update.bias is not None:
            change = source.strength * update.bias.to(weight.device, torch.float64)
            on_bias = change if on_bias is None else on_bias + change
    found = [(weight, on_weight)] if on_weight.any() else []
    if on_bias is not None:
        found.append((layer.bias, on_bias))
    return found


def _has_bias(layer: nn.Module, bias: Tensor) -> bool:
    own = getattr(layer, "bias", None)
    return isinstance(own, nn.Parameter) and own.shape == bias.shape
