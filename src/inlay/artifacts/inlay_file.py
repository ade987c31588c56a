"""Updates of layers in inlay's own files: tensors under the layer's name, `unet.<path>.<tensor>`.

LoRA is as in diffusers' files. LoHa and LoKr have PEFT's names, which are LyCORIS': `hada_w1_a`, `lokr_w1`; full
differences are `diff` and `diff_b`. What `inlay tune` has saved says rank and alpha in the header, under `peft_config`;
files of imported updates, whose layers may differ, hold an `alpha` for each layer and say `inlay.format: updates`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.artifacts.blueprint import Blueprint, fitting, some
from inlay.artifacts.diffusers_lora import HEADER, PARTS, header, name_tensors, read_layers, tensor_place
from inlay.artifacts.forms import ALPHA, alpha_tensor, assemble, disassemble, is_tensor_name
from inlay.artifacts.layers import Kronecker, LowRank, Scaled, Update, Updates, magnitude_axis
from inlay.artifacts.peft_config import stated_alpha
from inlay.artifacts.state import carried, glance, read_state
from inlay.errors import ArtifactError
from inlay.files import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

PEFT_CONFIG = "peft_config"
"""Where the header of a tuned LoHa or LoKr has PEFT's settings of each part."""
METHODS = ("lora", "loha", "lokr")
"""Tuning methods whose result is updates of layers."""
UPDATES = {"inlay.format": "updates"}
RANKS = "inlay.stated_ranks"
"""Where the header has the ranks of LoKr whose factors are both whole, which PEFT scales by a rank nevertheless."""


def recognises(path: Path) -> bool:
    """Whether a file holds updates in inlay's own layout."""
    if not path.is_file():
        return False
    _, metadata = glance(path)
    return metadata.get("inlay.format") == "updates" or _json(metadata, "inlay.method").get("name") in METHODS


def read(path: Path, blueprints: Sequence[Blueprint]) -> Updates:
    """Read a file.

    Raises:
        ArtifactError: it holds other tensors, is incomplete, or fits none of the models.
    """
    tensors, metadata = read_state(path)
    lora: dict[str, Tensor] = {}
    others: dict[str, dict[str, Tensor]] = {}
    unknown = []
    imported = "inlay.format" in metadata
    for name, value in tensors.items():
        layer, ending = _place(name)
        if tensor_place(name) is not None and not (imported and ending):
            lora[name] = value
        elif ending:
            others.setdefault(layer, {})[ending] = value
        else:
            unknown.append(name)
    if unknown:
        raise ArtifactError(f"{path}: not tensors of LoRA, LoHa, LoKr or full differences: {some(unknown)}")
    layers: dict[str, Update] = dict(read_layers(lora, metadata, str(path)))
    configs, ranks = _json(metadata, PEFT_CONFIG), _json(metadata, RANKS)
    for layer, named in others.items():
        part, _, inside = layer.partition(".")
        config = configs.get(part)
        update = assemble(named, f"{path}: {layer}", **({"alpha": stated_alpha(config, inside)} if config else {}))
        rank = config["r"] if config else ranks.get(layer)
        if isinstance(update, Kronecker) and update.whole and rank is not None:
            update = replace(update, stated_rank=rank)
        layers[layer] = update
    fitting(layers, blueprints, str(path))
    return Updates(layers, metadata)


def write(path: Path, updates: Updates, blueprints: Sequence[Blueprint]) -> Path:
    """Write a file: as `inlay tune` would where the header has the settings of `lora`, else one of imported updates."""
    tuned = _json(updates.metadata, "inlay.method").get("name") == "lora"
    plain: dict[str, LowRank] = {}
    tensors: dict[str, Tensor] = {}
    for layer, update in updates.layers.items():
        if isinstance(update, LowRank) and _as_diffusers(update):
            plain[layer] = update
            continue
        named = disassemble(update)
        if isinstance(update, Scaled) and not tuned:
            named[ALPHA] = alpha_tensor(update.plain_alpha, next(iter(named.values())))
        tensors |= {f"{layer}.{ending}": value for ending, value in named.items()}
    metadata = carried(dict(updates.metadata))
    metadata |= {"inlay.method": updates.metadata["inlay.method"]} if tuned else UPDATES
    ranks = {
        layer: update.stated_rank
        for layer, update in updates.layers.items()
        if isinstance(update, Kronecker) and update.stated_rank is not None
    }
    if ranks and not tuned:
        metadata[RANKS] = json.dumps(ranks)
    if plain:
        metadata[HEADER] = header(plain)
    return write_tensors(path, name_tensors(plain) | tensors, metadata)


def _place(name: str) -> tuple[str, str]:
    """Return (layer, tensor) of a name in this layout; an empty tensor for none."""
    for count in (1, 2):
        parts = name.rsplit(".", count)
        ending = ".".join(parts[1:])
        if len(parts) == count + 1 and is_tensor_name(ending) and parts[0].startswith(tuple(f"{p}." for p in PARTS)):
            return parts[0], ending
    return name, ""


def _as_diffusers(update: LowRank) -> bool:
    if update.mid is not None:
        return False
    if update.magnitude is None:
        return True
    return magnitude_axis(update.magnitude, (update.up.shape[0], *update.down.shape[1:])) == 0


def _json(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """Return a field of a header, empty where it is absent or broken."""
    try:
        value = json.loads(metadata.get(key, "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
