"""A file of named tensors, safetensors or pickled, opened by restricted means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inlay.artifacts.unpickle import read_pickle
from inlay.errors import ArtifactError
from inlay.files import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
NOT_CARRIED = (
    *("format", "lora_adapter_metadata", "peft_config", "modelspec.hash_sha256"),
    *("inlay.format", "inlay.method", "inlay.stated_ranks"),
)
"""Fields of a header that are true of one file only, or of one format."""


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file and its header, which a pickled file lacks.

    Raises:
        ArtifactError: it cannot be read, or holds something other than named tensors.
    """
    import torch

    if path.suffix not in PICKLED:
        return read_tensors(path)
    data = read_pickle(path)
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    if not isinstance(data, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in data.items()
    ):
        raise ArtifactError(f"{path}: holds something other than tensors under names")
    return data, {}


def glance(path: Path) -> tuple[list[str], dict[str, str]]:
    """Return the names in a file and its header, without its tensors where it is a safetensors file.

    What cannot be opened as named tensors has no names.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix in PICKLED:
            return list(read_state(path)[0]), {}
        with safe_open(path, framework="pt") as file:
            return list(file.keys()), dict(file.metadata() or {})
    except (ArtifactError, SafetensorError, OSError):
        return [], {}


def carried(metadata: dict[str, str]) -> dict[str, str]:
    """Return what of a header stays true when the same tensors are written in another format."""
    return {key: value for key, value in metadata.items() if key not in NOT_CARRIED and not key.startswith("sshs_")}
