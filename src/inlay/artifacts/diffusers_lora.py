"""LoRA in diffusers' files: `pytorch_lora_weights.safetensors`, and the layouts that came before it.

The newest layout names PEFT's tensors, `unet.<path>.lora_A.weight`; alpha, where it is not the rank, stands in the
header under `lora_adapter_metadata`. Older ones name `.lora.down`, `.lora_linear_layer.down`, or behind an attention's
`processor` `to_q_lora.down`, and the oldest have no `unet.` before the path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.artifacts.blueprint import Blueprint, fitting, some
from inlay.artifacts.forms import ALPHA, MAGNITUDE, assemble
from inlay.artifacts.layers import LowRank, Updates, magnitude_axis
from inlay.artifacts.peft_config import describe, stated_alpha
from inlay.artifacts.state import carried, glance, read_state
from inlay.errors import ArtifactError
from inlay.files import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

HEADER = "lora_adapter_metadata"
PARTS = ("unet", "text_encoder", "text_encoder_2")
FIELDS = {"A": "lora_down.weight", "B": "lora_up.weight", "down": "lora_down.weight", "up": "lora_up.weight"}
TENSOR = re.compile(
    r"(?P<path>.+?)(?:"
    r"\.lora_(?P<new>[AB])\.weight"
    r"|(?:\.lora|\.lora_linear_layer|\.(?P<projection>to_(?:q|k|v|out))_lora)\.(?P<old>down|up)\.weight"
    r"|\.(?P<magnitude>lora_magnitude_vector)(?:\.weight)?"
    r"|\.(?P<alpha>alpha)"
    r")"
)
IN_TEXT_ENCODERS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""The oldest files name the projections of text encoders as those of the denoiser."""


def tensor_place(name: str) -> tuple[str, str] | None:
    """Return (layer, tensor's name in :mod:`inlay.artifacts.forms` or `magnitude`) of a diffusers tensor name."""
    match = TENSOR.fullmatch(name)
    if match is None or name.startswith(("base_model.", "lora_unet_", "lora_te")):
        return None
    path = match["path"].replace(".processor", "")
    part, _, inside = path.partition(".")
    if part not in PARTS:
        if re.match(r"(down_blocks|mid_block|up_blocks)\.", path) is None:
            return None
        part, inside = "unet", path
    if match["projection"]:
        projection = match["projection"]
        in_unet = "to_out.0" if projection == "to_out" else projection
        inside = f"{inside}.{in_unet if part == 'unet' else IN_TEXT_ENCODERS[projection]}"
    if part != "unet" and not inside.startswith(("text_model.", "text_projection")):
        inside = f"text_model.{inside}"
    if match["alpha"]:
        return f"{part}.{inside}", ALPHA
    return f"{part}.{inside}", FIELDS.get(match["new"] or match["old"], "magnitude")


def recognises(path: Path) -> bool:
    """Whether a file holds tensors as diffusers names a LoRA's, and is none of inlay's own."""
    if path.is_dir():
        return False
    names, header = glance(path)
    return (
        "inlay.method" not in header
        and "inlay.format" not in header
        and any(place is not None and place[1] == "lora_down.weight" for place in map(tensor_place, names))
    )


def read(path: Path, blueprints: Sequence[Blueprint]) -> Updates:
    """Read a file.

    Raises:
        ArtifactError: it holds other tensors too, is incomplete, or fits none of the models.
    """
    tensors, metadata = read_state(path)
    unknown = [name for name in tensors if tensor_place(name) is None]
    if unknown:
        raise ArtifactError(f"{path}: not tensors of a diffusers LoRA: {some(unknown)}")
    updates = Updates(read_layers(tensors, metadata, str(path)), metadata)
    fitting(updates.layers, blueprints, str(path))
    return updates


def read_layers(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str) -> dict[str, LowRank]:
    """Return the LoRAs among tensors; other tensors are passed over.

    Raises:
        ArtifactError: a LoRA is incomplete, or the header contradicts itself.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        place = tensor_place(name)
        if place is not None:
            found.setdefault(place[0], {})[place[1]] = value
    configs = _configs(metadata, source)
    layers = {}
    for layer, named in found.items():
        part, _, inside = layer.partition(".")
        where = f"{source}: {layer}"
        if "magnitude" in named:
            named[MAGNITUDE] = column(named.pop("magnitude"), named.get("lora_down.weight"), where)
        facts: dict[str, Any] = {}
        if part in configs:
            facts = {"alpha": stated_alpha(configs[part], inside), "rslora": bool(configs[part].get("use_rslora"))}
        update = assemble(named, where, **facts)
        assert isinstance(update, LowRank)
        layers[layer] = update
    return layers


def write(path: Path, updates: Updates, blueprints: Sequence[Blueprint]) -> Path:
    """Write diffusers' newest layout.

    Raises:
        ArtifactError: a layer holds what the format cannot; nothing has been written.
    """
    layers = loras(updates, "a diffusers LoRA file", str(path))
    metadata = carried(dict(updates.metadata))
    return write_tensors(path, name_tensors(layers), {**metadata, HEADER: header(layers)})


def loras(updates: Updates, what: str, source: str) -> dict[str, LowRank]:
    """Return the layers of updates that PEFT's LoRA can hold.

    Raises:
        ArtifactError: naming the layers that it cannot, with the reason.
    """
    layers: dict[str, LowRank] = {}
    refused = []
    with_magnitude = {layer.partition(".")[0] for layer, one in updates.layers.items() if one.magnitude is not None}
    for layer, update in updates.layers.items():
        if not isinstance(update, LowRank):
            refused.append(f"{layer} is a {update.form}")
        elif update.mid is not None:
            refused.append(f"{layer} is a convolution's LoRA with a core (Tucker form)")
        elif update.magnitude is not None and not _by_output(update):
            refused.append(f"{layer} has a DoRA magnitude for each input, not for each output")
        else:
            layers[layer] = update
    if not refused:
        refused = [
            f"{layer} has no DoRA magnitudes while other layers of the same part have"
            for layer, update in layers.items()
            if update.magnitude is None and layer.partition(".")[0] in with_magnitude
        ]
    if refused:
        raise ArtifactError(f"{source}: {what} cannot hold this: {some(refused)}")
    return layers


def name_tensors(layers: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Return the tensors of LoRAs by the names that diffusers' ``load_lora_weights`` reads."""
    named: dict[str, Tensor] = {}
    for layer, update in layers.items():
        named[f"{layer}.lora_A.weight"] = update.down
        named[f"{layer}.lora_B.weight"] = update.up
        if update.magnitude is not None:
            # transformers, which reads the text encoder's for diffusers, finds them only with an ending.
            ending = "lora_magnitude_vector" if layer.startswith("unet.") else "lora_magnitude_vector.weight"
            named[f"{layer}.{ending}"] = peft_magnitude(update)
    return named


def peft_magnitude(update: LowRank) -> Tensor:
    """Return DoRA's magnitudes in PEFT's shape."""
    assert update.magnitude is not None
    outputs = update.up.shape[0]
    return update.magnitude.reshape(outputs if update.down.dim() == 2 else (1, outputs, 1, 1))


def header(layers: Mapping[str, LowRank]) -> str:
    """Return PEFT's settings of each part in the form in which diffusers stores them in the header."""
    settings: dict[str, Any] = {}
    for part in PARTS:
        inside = {name.partition(".")[2]: one for name, one in layers.items() if name.partition(".")[0] == part}
        if inside:
            settings |= {f"{part}.{key}": value for key, value in describe(part, inside).items()}
            settings[f"{part}.peft_type"] = "LORA"
    return json.dumps(settings, sort_keys=True)


def column(magnitude: Tensor, down: Tensor | None, where: str) -> Tensor:
    """Return PEFT's magnitudes, [out] or, beside a convolution, [1, out, 1, 1], as [out, 1, ...]."""
    if down is None or magnitude.numel() != max(magnitude.shape):
        raise ArtifactError(f"{where}: magnitudes of shape {tuple(magnitude.shape)} without a LoRA that they belong to")
    return magnitude.reshape(-1, *(1 for _ in down.shape[1:]))


def _by_output(update: LowRank) -> bool:
    assert update.magnitude is not None
    outputs = (update.up.shape[0], *update.down.shape[1:])
    return magnitude_axis(update.magnitude, outputs) == 0


def _configs(metadata: Mapping[str, str], source: str) -> dict[str, dict[str, Any]]:
    """Return PEFT's settings by part."""
    if HEADER not in metadata:
        return {}
    try:
        settings = json.loads(metadata[HEADER])
    except ValueError as error:
        raise ArtifactError(f"{source}: {HEADER} in the header is not JSON: {error}") from None
    configs: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        part, _, name = key.partition(".")
        configs.setdefault(part, {})[name] = value
    return configs
