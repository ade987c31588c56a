"""Arrays in safetensors files, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from numpy.typing import NDArray

from inlay.errors import ArtifactError


def write_arrays(path: Path, arrays: Mapping[str, NDArray], metadata: Mapping[str, str]) -> Path:
    """Write arrays beside `path`, then rename them there: readers see the old file or the new one.

    Raises:
        ArtifactError: the place cannot be written.
    """
    from safetensors.numpy import save

    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                file.write(save(dict(arrays), metadata=dict(metadata)))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def read_arrays(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file.

    Raises:
        ArtifactError: there is no such file, or it is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a safetensors file: {error}") from None
