"""From a run file and overrides to a validated job: tuning, or training a denoiser from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inlay.errors import ConfigError
from inlay.run.config import JobConfig, PretrainConfig, RunConfig
from inlay.run.load import apply_overrides, read_run_file, validate


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Return the job that a run file describes: a :class:`PretrainConfig` when it has the key `denoiser`.

    Args:
        path: the run file.
        overrides: ``dotted.key=value``, later ones winning.

    Raises:
        ConfigError: the file or an override cannot be read, the settings are wrong (every mistake at once), or the
            job both tunes the base's denoiser and brings its own.
    """
    data = apply_overrides(read_run_file(path), overrides)
    # `method=null denoiser=...` on the command line turns a run file of one kind into one of the other.
    data = {key: value for key, value in data.items() if value is not None or key not in ("method", "denoiser")}
    if "denoiser" not in data:
        return validate(RunConfig, data, source=path)
    if "method" in data:
        raise ConfigError(
            f"{path}: has both `method`, which tunes the base's denoiser, and `denoiser`, which trains one from "
            "scratch; leave out one of them"
        )
    return validate(PretrainConfig, data, source=path)
