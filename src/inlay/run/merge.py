"""Adapter files into a base, or into one LoRA."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inlay.artifacts.blueprint import Blueprint, fitting
from inlay.artifacts.formats import FORMATS, recognise
from inlay.artifacts.layers import Difference, Update, Updates
from inlay.artifacts.merge import Merged, Source, merge_updates
from inlay.artifacts.state import glance, read_state
from inlay.base.contract import Base
from inlay.errors import ArtifactError, ConfigError
from inlay.files import writing
from inlay.methods import METHODS, Method
from inlay.run.blueprints import candidates
from inlay.run.directory import PIPELINE, RUN_FILE
from inlay.run.record import read_record
from inlay.run.weights import check_format, load_whole, refuse_existing, weighted_layers


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


def merge_to_model(
    files: Sequence[Path], strengths: Sequence[float], base: str, output: Path
) -> tuple[list[Source], Folded]:
    """Write a base with files folded into its weights, as a diffusers pipeline in a new directory.

    Args:
        files: adapter files and run directories.
        strengths: one for each.
        base: as run files name it.
        output: the directory.

    Raises:
        InlayError: a file cannot be folded in, there is no such base, or something is at `output` already.
    """
    refuse_existing(output)
    loaded = load_whole(base)
    sources, _ = read_sources(files, strengths, base, loaded)
    folded = merge_into(loaded, sources)
    _save_pipeline(loaded, output)
    return sources, folded


def merge_to_lora(
    files: Sequence[Path],
    strengths: Sequence[float],
    output: Path,
    rank: int | None = None,
    base: str | None = None,
    format_name: str = "diffusers",
) -> tuple[list[Source], Merged]:
    """Write one LoRA that stands for several files; see :func:`inlay.artifacts.merge.merge_updates`.

    Args:
        files: adapter files and run directories.
        strengths: one for each.
        output: a new file.
        rank: of the result; None for the exact sum.
        base: as run files name it, where files do not say it or their changes depend on its weights.
        format_name: a key of FORMATS.

    Raises:
        InlayError: a file cannot be part of a LoRA, files belong to different bases, or something is at `output`.
    """
    check_format(format_name)
    refuse_existing(output)
    loaded = None if base is None else load_whole(base)
    sources, models = read_sources(files, strengths, base, loaded)
    weights = None
    if loaded is not None:
        weights = {name: layer.weight.detach() for name, layer in weighted_layers(loaded.components).items()}
    merged = merge_updates(sources, models[0].shapes, rank, weights)
    facts = _provenance(sources, rank, merged.relative_error)
    FORMATS[format_name].write(output, replace(merged.updates, metadata=facts), models)
    return sources, merged


def read_sources(
    targets: Sequence[Path], strengths: Sequence[float], base: str | None = None, loaded: Base | None = None
) -> tuple[list[Source], list[Blueprint]]:
    """Read files, or the files of runs, each with the strength of its target.

    Args:
        targets: files and run directories.
        strengths: one for each.
        base: the model that they belong to, as run files name it; None to go by the files.
        loaded: the same, for methods whose changes depend on its weights.

    Returns:
        The sources, and the models that all of them fit.

    Raises:
        ConfigError: a strength is no finite number, or there is not one for each target.
        ArtifactError: a file cannot be read, cannot be folded into weights, or belongs to another model than the rest.
    """
    if len(strengths) != len(targets):
        raise ConfigError(f"--weights gives {len(strengths)} numbers for {len(targets)} files; give one for each")
    unusable = [strength for strength in strengths if not math.isfinite(strength)]
    if unusable:
        raise ConfigError(f"--weights: {unusable[0]} is no finite number")
    found: list[Source] = []
    models: list[Blueprint] = []
    for target, strength in zip(targets, strengths, strict=True):
        for path in files_of(target):
            updates, fits = _read(path, base, loaded)
            common = [model for model in models if model.name in {one.name for one in fits}] if found else fits
            if not common:
                raise ArtifactError(
                    f"{path} belongs to {' or '.join(model.name for model in fits)}, and {found[0].name} to "
                    f"{' or '.join(model.name for model in models)}; only files of one model can be merged"
                )
            models = common
            found.append(Source(str(path), updates, strength))
    return found, models


def _read(path: Path, base: str | None, loaded: Base | None) -> tuple[Updates, list[Blueprint]]:
    header = glance(path)[1] if path.is_file() else {}
    kind = method_of(header)
    if kind is not None and not kind.merges:
        name = kind.model_fields["name"].default
        raise ArtifactError(f"{path}: {name} cannot be folded into weights; keep the file beside the base")
    models = candidates(base, header)
    if kind is not None and not any(one.recognises(path) for one in FORMATS.values()):
        if loaded is None:
            raise ArtifactError(
                f"{path}: what {kind.model_fields['name'].default} changes depends on the base's weights; say which "
                "base by --base MODEL"
            )
        return as_differences(path, loaded), models
    one = FORMATS[recognise(path)]
    contents = one.read(path, models)
    if not isinstance(contents, Updates):
        raise ArtifactError(f"{path}: {one.contents} cannot be folded into weights; keep the file beside the base")
    return contents, fitting(contents.layers, models, str(path))


def as_differences(path: Path, base: Base) -> Updates:
    """Return what the merging of a file's method changes in a copy of a base's weights and biases.

    Raises:
        TargetError: the base lacks what the method addresses.
        ArtifactError: the file does not fit there.
    """
    tensors, header = read_state(path)
    components = copy.deepcopy(base.components)
    kind = method_of(header)
    assert kind is not None
    attachment = kind.model_validate_json(header["inlay.method"]).attach(components)
    attachment.load(tensors)
    attachment.merge()
    before, after = weighted_layers(base.components), weighted_layers(components)
    layers: dict[str, Update] = {}
    for name, layer in before.items():
        changes = {
            kind: getattr(after[name], kind).detach() - getattr(layer, kind).detach()
            for kind in ("weight", "bias")
            if isinstance(getattr(layer, kind, None), nn.Parameter)
        }
        changed = {kind: change for kind, change in changes.items() if change.any()}
        if changed:
            layers[name] = Difference(**changed)
    return Updates(layers, header)


def method_of(header: Mapping[str, str]) -> type[Method] | None:
    """Return the method of a file of inlay's own."""
    try:
        return METHODS.get(json.loads(header.get("inlay.method", "{}")).get("name"))
    except (ValueError, AttributeError):
        return None


def merge_into(base: Base, sources: Sequence[Source]) -> Folded:
    """Add the weighted sum of all changes to a base's own weights, each change being relative to the base as it was.

    Raises:
        ArtifactError: a file does not fit the base; nothing has changed then.
    """
    layers = weighted_layers(base.components)
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


def _provenance(sources: Sequence[Source], rank: int | None, error: float) -> dict[str, str]:
    """Return what the header of a merged file says about what it was made of."""
    made_of = [
        {
            "file": Path(source.name).name,
            "weight": source.strength,
            **{
                key: source.updates.metadata[f"inlay.{key}"]
                for key in ("base", "trigger", "config_hash")
                if source.updates.metadata.get(f"inlay.{key}")
            },
        }
        for source in sources
    ]
    said = {source.updates.metadata.get("inlay.base") for source in sources}
    base = said.pop() if len(said) == 1 else None
    return {
        "inlay.merged_from": json.dumps(made_of),
        "inlay.merged_rank": "sum" if rank is None else str(rank),
        "inlay.merged_error": f"{error:.6g}",
        **({"inlay.base": base} if base else {}),
    }


def _save_pipeline(base: Base, directory: Path) -> Path:
    """Write a base as a diffusers pipeline: all of it, or nothing.

    Raises:
        ArtifactError: the place cannot be written.
    """
    unfinished = directory.with_name(f".{os.getpid()}.{directory.name}")
    with writing(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            base.save_pipeline(unfinished)
            os.replace(unfinished, directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return directory
