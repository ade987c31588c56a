"""What lies at a path: files of any format, runs and whole models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from inlay.artifacts.a1111_hypernetwork import HypernetworkFile
from inlay.artifacts.blueprint import Blueprint, file_name
from inlay.artifacts.embeddings import Embeddings
from inlay.artifacts.formats import FORMATS, recognise
from inlay.artifacts.inspection import (
    TEXT_WIDTHS,
    Inspection,
    Strength,
    differences,
    of_embeddings,
    of_hypernetwork,
    of_method,
    of_tensors,
    of_updates,
)
from inlay.artifacts.layers import Updates
from inlay.artifacts.state import glance, read_state
from inlay.base.contract import Base
from inlay.base.families import read_base
from inlay.base.locate import CONFIGS, WEIGHTS, locate, weight_files
from inlay.base.settings import BaseSettings
from inlay.base.stable_diffusion import PARTS
from inlay.errors import ArtifactError, ConfigError
from inlay.files import bytes_of
from inlay.run.blueprints import base_blueprint, candidates
from inlay.run.directory import PIPELINE, RUN_FILE
from inlay.run.extract import refuse_differing
from inlay.run.merge import as_differences, files_of, method_of
from inlay.run.record import read_record
from inlay.run.weights import load_whole

CHECKPOINT = "model.diffusion_model."
"""How names in whole checkpoints of the original layout begin."""
ORIGINAL = {
    "model": "unet",
    "first_stage_model": "vae",
    "cond_stage_model": "text_encoder",
    "conditioner.embedders.0": "text_encoder",
    "conditioner.embedders.1": "text_encoder_2",
}
"""Parts of a model by how their names begin there."""
PRECISIONS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}
"""What safetensors' headers call the precisions of torch."""


def inspect(target: Path, base: str | None = None) -> list[Inspection]:
    """Return what is in a file, in each file of a run, or in a model.

    Args:
        target: a file of any format, a run directory, or a model's directory.
        base: the model to hold it against, as run files name it.

    Raises:
        ConfigError: there is nothing, or the run has not finished.
        ArtifactError: a file is broken, or does not fit the base.
    """
    if not target.exists():
        raise ConfigError(f"{target}: no such file or directory")
    loaded = None if base is None else load_whole(base)
    if (target / RUN_FILE).is_file():
        record = read_record(target)
        if record is not None and record["files"] == [PIPELINE]:
            return [_model(target / PIPELINE, loaded)]
        return [_file(path, base, loaded) for path in files_of(target)]
    if (target / CONFIGS["vae"]).is_file():
        return [_model(target, loaded)]
    return [_file(target, base, loaded)]


def _file(path: Path, base: str | None, loaded: Base | None) -> Inspection:
    names, header = glance(path) if path.is_file() else ([], {})
    if any(name.startswith(CHECKPOINT) for name in names):
        return _model(path, loaded)
    blank = Inspection(path, bytes_of(path), "", "", (), {})
    tensors = None if loaded is None else _tensors(loaded)
    try:
        name = recognise(path)
    except ArtifactError as error:
        if not names:
            raise
        kind = method_of(header)
        if kind is None:
            return _unknown(replace(blank, format="tensors under names"), str(error), header)
        own = replace(blank, format="inlay")
        if loaded is None or tensors is None or not kind.merges:
            return of_tensors(own, *read_state(path))
        return of_method(own, read_state(path)[0], as_differences(path, loaded), tensors)
    blank = replace(blank, format=name)
    blueprints: Sequence[Blueprint] = []
    if FORMATS[name].contents == "updates":
        blueprints = candidates(base, header)
    try:
        contents = FORMATS[name].read(path, blueprints)
    except ArtifactError as error:
        if base is not None or not names:
            raise
        return _unknown(blank, str(error), header)
    match contents:
        case Updates():
            return of_updates(blank, contents, blueprints, tensors)
        case HypernetworkFile():
            return of_hypernetwork(blank, contents, header)
        case Embeddings():
            return of_embeddings(blank, contents, tensors)
    raise ArtifactError(f"{path}: holds {FORMATS[name].contents}, which cannot be inspected")


def _unknown(blank: Inspection, reason: str, header: dict[str, str]) -> Inspection:
    """Return what can be said of named tensors that no format explains, and why none does."""
    tensors, _ = read_state(blank.path)
    return replace(of_tensors(blank, tensors, header), notes=(reason,))


def _model(path: Path, loaded: Base | None) -> Inspection:
    """Return what is in a whole model; held against a base, how far each layer is from it.

    Raises:
        ConfigError: the base is of another architecture.
    """
    settings = BaseSettings(model=str(path))
    held = [part for part in WEIGHTS if part in PARTS or (path / part).is_dir()]
    files = [path] if path.is_file() else [file for part in held for file in weight_files(path, part)]
    precisions, parts = _stored(files)
    blank = Inspection(
        path,
        bytes_of(path),
        "original checkpoint" if path.is_file() else "diffusers pipeline",
        "whole model",
        tuple(Strength(part, "whole", count, None) for part, count in parts.items()),
        precisions,
        fits=tuple(_families(settings)),
    )
    if loaded is None:
        return blank
    model = load_whole(path)
    refuse_differing(model, loaded)
    changed = differences(_tensors(model), _tensors(loaded))
    layers = len({name.rpartition(".")[0] for name in _tensors(model)})
    note = f"{len(changed)} of {layers} layers differ from {loaded.name}"
    return replace(blank, strengths=changed, notes=(note,), measure="difference from the base")


def _families(settings: BaseSettings) -> list[str]:
    """Return the known bases with the model's denoiser, or with its text states where none has just that."""
    try:
        architecture = read_base(settings, locate(settings, weights=False))
    except ConfigError:  # of another family, or a checkpoint that does not say what it predicts
        return []
    if base_blueprint(settings).shapes == base_blueprint(BaseSettings(model="tabletop")).shapes:
        return ["tabletop"]
    width = architecture.text_shape[1] if architecture.text_shape else 0
    return [TEXT_WIDTHS[width]] if width in TEXT_WIDTHS else []


def _stored(files: Sequence[Path]) -> tuple[dict[str, int], dict[str, int]]:
    """Return parameters by precision, and by the part of a model, from the headers of safetensors files alone."""
    precisions: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                    stored = file.get_slice(name)
                    count, precision = math.prod(stored.get_shape()), str(stored.get_dtype())
                    precisions[PRECISIONS.get(precision, precision)] += count
                    parts[_part(name) or path.parent.name] += count
        except SafetensorError as error:
            raise ArtifactError(f"{path}: not a safetensors file: {error}") from None
    return dict(precisions), dict(parts)


def _part(name: str) -> str | None:
    return next((part for beginning, part in ORIGINAL.items() if name.startswith(f"{beginning}.")), None)


def _tensors(base: Base) -> dict[str, Tensor]:
    """Return a model's weights and biases by their names in files."""
    found = {}
    for part, module in base.components.items():
        for name, parameter in module.named_parameters():
            layer, _, kind = name.rpartition(".")
            found[f"{file_name(part, layer)}.{kind}"] = parameter.detach()
    return found
