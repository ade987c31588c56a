"""The record of a run: what was asked, on what, at what cost, with what result."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from inlay.errors import ArtifactError
from inlay.files import write_json

PACKAGES = ("inlay", "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy")
RECORD = "record.json"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide results."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def hardware() -> dict[str, Any]:
    """Return what the run runs on."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
    }


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_record(directory: Path, record: Mapping[str, Any]) -> Path:
    """Write `record.json`; what is missing must be null and its reason stand beside it, not NaN."""
    return write_json(directory / RECORD, dict(record))


def read_record(directory: Path) -> dict[str, Any] | None:
    """Return a run's record, None when it has none yet.

    Raises:
        ArtifactError: the file is broken.
    """
    path = directory / RECORD
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: not a record: {error}") from None


def command_line() -> list[str]:
    """Return the command as it was typed."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
