"""The run directory: what lies where in it, who may write it, and the tuned model that comes out of it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inlay.base.contract import Base
from inlay.base.families import load_base
from inlay.errors import ArtifactError, ConfigError
from inlay.methods import Attachment, Method
from inlay.run.attach import attach, take_over
from inlay.run.config import JobConfig, PretrainConfig, RunConfig
from inlay.run.layout import CLASS_IMAGES, PIPELINE, RUN_FILE, TRACE
from inlay.run.load import read_run_file, validate
from inlay.run.record import read_record

__all__ = [
    "CLASS_IMAGES",
    "PIPELINE",
    "RUN_FILE",
    "TRACE",
    "alone_in",
    "finished_run",
    "load_run",
    "method_file",
    "read_config",
    "read_trace",
]


class Occupied(ConfigError):
    """Another process is at work in a directory."""


def method_file(directory: Path, index: int, method: Method) -> Path:
    """Return where the ``index``-th method of a run is saved."""
    return directory / method.file_name if index == 0 else directory / f"stack-{index}" / method.file_name


def read_trace(directory: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's trace, one a step."""
    lines = (directory / TRACE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_config(directory: Path) -> JobConfig:
    """Return the resolved configuration of a run directory.

    Raises:
        ConfigError: there is none.
    """
    path = directory / RUN_FILE
    if not path.is_file():
        raise ConfigError(f"{directory}: not a run directory; it has no {RUN_FILE}")
    data = read_run_file(path)
    return validate(PretrainConfig if "denoiser" in data else RunConfig, data, path)


def load_run(directory: Path) -> tuple[Base, list[Attachment]]:
    """Load the tuned model of a finished run: its base, and its methods attached with what they learned.

    Raises:
        ConfigError: the directory holds no finished run.
        ArtifactError: a file is broken or belongs to another base.
    """
    config = read_config(directory)
    record = read_record(directory)
    if record is None or record["status"] != "done":
        raise ConfigError(f"{directory}: the run has not finished; go on with `inlay tune {directory / RUN_FILE}`")
    if record["files"] == [PIPELINE]:
        return load_base(config.base.model_copy(update={"model": str(directory / PIPELINE)})), []
    base = load_base(config.base)
    if base.file_hash != record["base"]["hash"]:
        raise ArtifactError(f"{directory}: tuned on another {config.base.model}; its weights have changed since")
    attachments = attach(config.methods, base, config.seed)
    for index, attachment in enumerate(attachments):
        take_over(attachment, method_file(directory, index, attachment.method))
    return base, attachments


def finished_run(config: JobConfig, directory: Path) -> dict[str, Any] | None:
    """Refuse a directory in which this run cannot be; return the record of the same run when it is finished there.

    Raises:
        ConfigError: the directory holds something else.
    """
    if not directory.exists():
        return None
    if not directory.is_dir():
        raise ConfigError(f"output={directory}: a file of that name is in the way")
    if not (directory / RUN_FILE).exists():
        # Hidden files do not count: another process of this run may be writing its own just now.
        if any(not path.name.startswith(".") for path in directory.iterdir()):
            raise ConfigError(f"output={directory}: the directory holds other files; give a new or empty one")
        return None
    earlier = read_config(directory)
    if earlier.identity() != config.identity():
        raise ConfigError(
            f"output={directory}: holds a run with other settings ({', '.join(_differing(earlier, config))}); "
            "give another output=..., or the same settings to go on with it"
        )
    record = read_record(directory)
    return record if record is not None and record["status"] == "done" else None


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Hold a directory for this process inside a ``with`` block; the lock ends with the process, however it ends.

    Raises:
        Occupied: another process holds it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Occupied(f"output={directory}: another process is at work on this run; wait for it or end it") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def _differing(earlier: JobConfig, config: JobConfig) -> list[str]:
    def flat(value: Any, key: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {key: value}
        return {
            name: v for child, inner in value.items() for name, v in flat(inner, f"{key}.{child}".strip(".")).items()
        }

    one, other = (flat(job.decisive().model_dump(mode="json")) for job in (earlier, config))
    return sorted(name for name in one | other if one.get(name) != other.get(name))
