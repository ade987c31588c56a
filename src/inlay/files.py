"""Atomic writes of anything, and safetensors files with metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while ``path`` is written, a full disk or a missing right, into one message.

    Raises:
        ArtifactError: with the path and the system's reason.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise ArtifactError(f"{path}: cannot be written: {reason}") from error


def write_atomically(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let ``write`` make a file beside ``path``, then rename it there: readers see the old file or the new one.

    Raises:
        ArtifactError: the place cannot be written; an old file is still there.
    """
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner can read
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def bytes_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically."""
    return write_atomically(path, lambda place: place.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file atomically; infinities and NaN are refused."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file atomically.

    Args:
        path: where to.
        tensors: by name.
        metadata: for the file's header; diffusers requires `format`, which is added.
    """
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_atomically(path, lambda place: save_file(ready, place, metadata={"format": "pt", **metadata}))


def write_arrays(path: Path, arrays: Mapping[str, NDArray], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file of NumPy arrays atomically; torch is not loaded."""
    import numpy as np
    from safetensors.numpy import save_file

    # safetensors writes numbers in the order in which they lie in memory, whatever the array's strides say.
    ready = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return write_atomically(path, lambda place: save_file(ready, place, metadata=dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        ArtifactError: there is no such file, or it is no safetensors file.
    """
    return _read(path, "pt")


def read_arrays(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Return the same as NumPy arrays; torch is not loaded.

    Raises:
        ArtifactError: there is no such file, or it is no safetensors file.
    """
    return _read(path, "np")


def _read(path: Path, framework: str) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a safetensors file: {error}") from None
