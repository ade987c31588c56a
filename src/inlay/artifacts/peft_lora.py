"""PEFT's directories: `adapter_model.safetensors` beside `adapter_config.json`, for LoRA, LoHa and LoKr.

Such a directory is for one model. Of a base with several tuned parts each has its own, `unet` and `text_encoder`, as
PEFT's own examples for diffusion models save them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.artifacts.blueprint import Blueprint, fitting, some
from inlay.artifacts.diffusers_lora import PARTS, column, loras, peft_magnitude
from inlay.artifacts.forms import MAGNITUDE, NAMES, assemble, disassemble
from inlay.artifacts.layers import Hadamard, Kronecker, LowRank, Scaled, Updates
from inlay.artifacts.lokr_factors import peft_settings
from inlay.artifacts.peft_config import describe, stated_alpha
from inlay.artifacts.state import carried, read_state
from inlay.errors import ArtifactError
from inlay.files import write_json, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
TYPES: dict[str, type[Scaled]] = {"LORA": LowRank, "LOHA": Hadamard, "LOKR": Kronecker}
FIELDS = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"} | {
    name: name for form in (Hadamard, Kronecker) for name in NAMES[form].values()
}
MAGNITUDES = ("lora_magnitude_vector", "lora_magnitude_vector.weight")
UNSUPPORTED = ("fan_in_fan_out", "lora_bias", "modules_to_save", "use_qalora", "target_parameters", "layer_replication")
"""Settings under which the tensors of a LoRA mean something else, or are not all there is."""


def recognises(path: Path) -> bool:
    """Whether a path is a directory of PEFT's, or holds one for a part of a base."""
    return bool(_directories(path))


def read(path: Path, blueprints: Sequence[Blueprint]) -> Updates:
    """Read a directory.

    Raises:
        ArtifactError: it is of another kind than LoRA, LoHa and LoKr, holds tensors that are not known, is incomplete,
            or fits none of the models.
    """
    layers = {}
    metadata: dict[str, str] = {}
    for part, directory in _directories(path).items():
        found, header = _read_part(directory, part or _part(directory))
        layers |= found
        metadata |= header
    fitting(layers, blueprints, str(path))
    return Updates(layers, metadata)


def write(path: Path, updates: Updates, blueprints: Sequence[Blueprint]) -> Path:
    """Write a directory with a folder for each part.

    Raises:
        ArtifactError: a layer holds what the format cannot; nothing has been written.
    """
    whole: dict[str, dict[str, Scaled]] = {}
    for layer, update in updates.layers.items():
        part, _, inside = layer.partition(".")
        if not isinstance(update, Scaled):
            raise ArtifactError(f"{path}: PEFT cannot hold this: {layer} is a {update.form}")
        whole.setdefault(part, {})[inside] = update
    shapes = blueprints[0].shapes
    ready = {part: _part_files(part, layers, shapes, str(path)) for part, layers in whole.items()}
    for part, (tensors, config) in ready.items():
        write_tensors(path / part / WEIGHTS[0], tensors, carried(dict(updates.metadata)))
        write_json(path / part / CONFIG, config)
    return path


def _directories(path: Path) -> dict[str, Path]:
    """Return PEFT's directories at a path by part; "" for one that does not say which."""
    if path.name in (*WEIGHTS, CONFIG):
        path = path.parent
    if (path / CONFIG).is_file():
        return {path.name if path.name in PARTS else "": path}
    return {part: path / part for part in PARTS if (path / part / CONFIG).is_file()}


def _part(directory: Path) -> str:
    """Return the part that a directory must be of by its layers' names."""
    tensors, _ = _weights(directory)
    first = next(iter(tensors), "").removeprefix(PREFIX)
    return "text_encoder" if first.startswith(("text_model.", "encoder.layers.")) else "unet"


def _weights(directory: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    for name in WEIGHTS:
        if (directory / name).is_file():
            return read_state(directory / name)
    raise ArtifactError(f"{directory}: has {CONFIG} but neither {' nor '.join(WEIGHTS)}")


def _read_part(directory: Path, part: str) -> tuple[dict[str, Scaled], dict[str, str]]:
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{directory / CONFIG}: not a readable configuration: {error}") from None
    kind = config.get("peft_type")
    if kind not in TYPES:
        raise ArtifactError(f"{directory / CONFIG}: peft_type is {kind!r}; allowed: {', '.join(TYPES)}")
    strange = [key for key in UNSUPPORTED if config.get(key)]
    if config.get("bias", "none") != "none":
        strange.append("bias")
    if strange:
        raise ArtifactError(f"{directory / CONFIG}: {', '.join(strange)}: not supported by inlay")
    tensors, metadata = _weights(directory)
    found: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, value in tensors.items():
        place = _place(name)
        if place is None:
            unknown.append(name)
        else:
            found.setdefault(place[0], {})[place[1]] = value
    if unknown:
        raise ArtifactError(f"{directory}: not tensors of a {TYPES[kind].form}: {some(unknown)}")
    layers = {}
    for inside, named in found.items():
        where = f"{directory}: {inside}"
        if "magnitude" in named:
            named[MAGNITUDE] = column(named.pop("magnitude"), named.get("lora_down.weight"), where)
        facts: dict[str, Any] = {"alpha": stated_alpha(config, inside), "rslora": bool(config.get("use_rslora"))}
        update = assemble(named, where, **facts)
        if type(update) is not TYPES[kind]:
            raise ArtifactError(f"{where}: holds a {update.form}, and {CONFIG} says {kind}")
        if isinstance(update, Kronecker) and update.whole:
            update = replace(update, stated_rank=_rank(config, inside))
        level = "text_model." if part != "unet" and not inside.startswith(("text_model.", "text_proj")) else ""
        layers[f"{part}.{level}{inside}"] = update
    return layers, metadata


def _rank(config: Mapping[str, Any], inside: str) -> int:
    # Ranks are patterned as alphas are.
    ranks = {"alpha_pattern": config.get("rank_pattern"), "alpha": config.get("r", 8)}
    return int(stated_alpha(ranks, inside))


def _place(name: str) -> tuple[str, str] | None:
    """Return (layer, tensor's name in :mod:`inlay.artifacts.forms` or `magnitude`)."""
    name = name.removeprefix(PREFIX)
    for ending, tensor in (*FIELDS.items(), *((one, "magnitude") for one in MAGNITUDES)):
        if name.endswith(f".{ending}"):
            return name.removesuffix(f".{ending}"), tensor
    return None


def _part_files(
    part: str, layers: Mapping[str, Scaled], shapes: Mapping[str, tuple[int, ...]], source: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and configuration of one part's directory."""
    forms = {type(update) for update in layers.values()}
    if len(forms) > 1:
        raise ArtifactError(
            f"{source}: a PEFT directory holds one kind of update; {part} has "
            f"{' and '.join(sorted(form.form for form in forms))}"
        )
    (form,) = forms
    general = {"peft_type": next(name for name, one in TYPES.items() if one is form), "inference_mode": True}
    if form is LowRank:
        low_rank = loras(Updates({f"{part}.{inside}": one for inside, one in layers.items()}), "PEFT", source)
        return _lora_tensors(part, low_rank), {**general, **describe(part, layers), "bias": "none"}
    own = {inside: shapes[f"{part}.{inside}"] for inside in layers}
    refused = [f"{part}.{inside} has DoRA magnitudes" for inside, one in layers.items() if one.magnitude is not None]
    if form is Hadamard:
        cores = {inside for inside, one in layers.items() if isinstance(one, Hadamard) and one.t1 is not None}
        general["use_effective_conv2d"] = bool(cores)
        windows = {inside for inside, shape in own.items() if any(side > 1 for side in shape[2:])}
        if cores:
            refused += [f"{part}.{inside} has no core, and others have" for inside in sorted(windows - cores)]
    if refused:
        raise ArtifactError(f"{source}: PEFT's {form.form} cannot hold this: {some(refused)}")
    if form is Kronecker:
        kronecker = {inside: one for inside, one in layers.items() if isinstance(one, Kronecker)}
        layers, settings = peft_settings(kronecker, own, source)
        general |= settings
    tensors = {
        f"{_peft_name(part, inside)}.{ending}": value
        for inside, update in layers.items()
        for ending, value in disassemble(update).items()
    }
    return tensors, {**general, **describe(part, layers)}


def _peft_name(part: str, inside: str) -> str:
    """Return a layer's name to PEFT, which is that in the model: transformers 5's CLIPTextModel has no `text_model`.

    Its CLIPTextModelWithProjection, the second text encoder of Stable Diffusion XL, has it still.
    """
    return PREFIX + (inside.removeprefix("text_model.") if part == "text_encoder" else inside)


def _lora_tensors(part: str, layers: Mapping[str, LowRank]) -> dict[str, Tensor]:
    tensors = {}
    for layer, update in layers.items():
        name = _peft_name(part, layer.removeprefix(f"{part}."))
        tensors[f"{name}.lora_A.weight"] = update.down
        tensors[f"{name}.lora_B.weight"] = update.up
        if update.magnitude is not None:
            tensors[f"{name}.lora_magnitude_vector"] = peft_magnitude(update)
    return tensors
