"""What `inlay tune` saves of BitFit, read as differences of biases and of norms' weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.artifacts.blueprint import Blueprint, fitting, some
from inlay.artifacts.layers import Difference, Updates
from inlay.artifacts.state import carried, glance, read_state
from inlay.errors import ArtifactError
from inlay.files import write_tensors

if TYPE_CHECKING:
    from torch import Tensor


def recognises(path: Path) -> bool:
    """Whether a file says that it is BitFit's."""
    if not path.is_file():
        return False
    _, header = glance(path)
    return _is_bitfit(header)


def read(path: Path, blueprints: Sequence[Blueprint]) -> Updates:
    """Read a file.

    Raises:
        ArtifactError: it holds other tensors too, or fits none of the models.
    """
    tensors, metadata = read_state(path)
    unknown = [name for name in tensors if name.rpartition(".")[2] not in ("weight", "bias")]
    if unknown or not _is_bitfit(metadata):
        raise ArtifactError(f"{path}: not a BitFit file of inlay: {some(unknown) or 'its header does not say so'}")
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        found.setdefault(layer, {})[kind] = value
    layers = {layer: Difference(weight=both.get("weight"), bias=both.get("bias")) for layer, both in found.items()}
    fitting(layers, blueprints, str(path))
    return Updates(layers, metadata)


def write(path: Path, updates: Updates, blueprints: Sequence[Blueprint]) -> Path:
    """Write what :func:`read` has read.

    Raises:
        ArtifactError: the updates are not BitFit's.
    """
    tensors: dict[str, Tensor] = {}
    refused = []
    for layer, update in updates.layers.items():
        values = update.tensors()
        if not isinstance(update, Difference) or any(value.dim() != 1 for value in values.values()):
            refused.append(f"{layer} is a {update.form} of a matrix")
        tensors |= {f"{layer}.{kind}": value for kind, value in values.items()}
    method = updates.metadata.get("inlay.method", "")
    if refused or not _is_bitfit(updates.metadata):
        raise ArtifactError(
            f"{path}: a BitFit file holds changes of biases and norms that `inlay tune` has learned: "
            f"{some(refused) or 'these come from elsewhere'}"
        )
    return write_tensors(path, tensors, {**carried(dict(updates.metadata)), "inlay.method": method})


def _is_bitfit(header: Mapping[str, str]) -> bool:
    try:
        return json.loads(header.get("inlay.method", "{}")).get("name") == "bitfit"
    except (ValueError, AttributeError):
        return False
