"""What kohya's files say in their header: `ss_*`, the hash that webui knows them by, and ModelSpec."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from inlay.artifacts.blueprint import Blueprint
from inlay.artifacts.layers import Scaled, Updates
from inlay.artifacts.state import carried

if TYPE_CHECKING:
    from torch import Tensor

ALGORITHMS = {"LoRA": "locon", "LoHa": "loha", "LoKr": "lokr", "full difference": "full"}
"""LyCORIS' names of the forms."""
MODELSPEC = "1.0.0"
IMPLEMENTATIONS = {True: "https://github.com/Stability-AI/generative-models", False: "diffusers"}
"""Of which code the names are, for XL and for the others, as kohya states it."""


def kohya_metadata(
    title: str, updates: Updates, blueprints: Sequence[Blueprint], module: str, tensors: Mapping[str, Tensor]
) -> dict[str, str]:
    """Return the header.

    A model that ModelSpec has no name for gets no ModelSpec: its architecture is obligatory, and another's is not
    written.

    Args:
        title: the file's name without ending.
        updates: what the file holds; fields of its header that stay true go along, `ss_*` among them.
        blueprints: the models that it may have been made for; what they differ in is not stated.
        module: kohya's name of the kind of network.
        tensors: as they will be in the file.
    """
    scaled = [update for update in updates.layers.values() if isinstance(update, Scaled)]
    digest = data_hash(tensors)
    kept = {key: value for key, value in carried(dict(updates.metadata)).items() if not key.startswith("modelspec.")}
    for stale in ("ss_v2", "ss_base_model_version"):
        kept.pop(stale, None)
    metadata = {
        **kept,
        "ss_network_module": module,
        "ss_network_dim": _common(update.rank for update in scaled),
        "ss_network_alpha": _common(update.plain_alpha for update in scaled),
        "ss_output_name": title,
        "sshs_model_hash": digest,
    }
    if module.startswith("lycoris"):
        metadata["ss_network_args"] = json.dumps(_arguments(updates))
    if "inlay.base" in kept:
        metadata.setdefault("ss_sd_model_name", kept["inlay.base"])
    if "inlay.steps" in kept:
        metadata.setdefault("ss_steps", kept["inlay.steps"])
    version, architecture, prediction = (
        _shared(getattr(blueprint, fact) for blueprint in blueprints)
        for fact in ("kohya_version", "architecture", "prediction")
    )
    if version is not None:
        metadata["ss_base_model_version"] = version
        metadata["ss_v2"] = str(version.startswith("sd_v2"))
    if architecture is None:
        return metadata
    metadata |= {
        "modelspec.sai_model_spec": MODELSPEC,
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": IMPLEMENTATIONS[blueprints[0].xl],
        "modelspec.title": title,
        "modelspec.resolution": f"{blueprints[0].resolution}x{blueprints[0].resolution}",
        "modelspec.hash_sha256": f"0x{digest}",
    }
    if prediction is not None:
        metadata["modelspec.prediction_type"] = {"v_prediction": "v"}.get(prediction, prediction)
    if kept.get("inlay.trigger"):
        metadata["modelspec.trigger_phrase"] = kept["inlay.trigger"]
    if "ss_training_finished_at" in kept:
        finished = datetime.fromtimestamp(float(kept["ss_training_finished_at"]), UTC)
        metadata["modelspec.date"] = finished.isoformat(timespec="seconds")
    return metadata


def data_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a safetensors file behind its header, so that editing the header does not change it.

    webui's "additional networks" extension and kohya call it `sshs_model_hash`.
    """
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def _shared(values: Iterable[str | None]) -> str | None:
    """Return the value that all have, None when they differ."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _arguments(updates: Updates) -> dict[str, str]:
    form = Counter(update.form for update in updates.layers.values()).most_common(1)[0][0]
    arguments = {"algo": ALGORITHMS[form]}
    if any(update.magnitude is not None for update in updates.layers.values()):
        arguments["dora_wd"] = "True"
    return arguments


def _common(values: Iterable[float]) -> str:
    """Return the one value of all layers, as kohya writes it, or what it writes where they differ."""
    different = set(values)
    if len(different) != 1:
        return "Dynamic" if different else "None"
    (value,) = different
    return str(int(value) if value == int(value) else value)
