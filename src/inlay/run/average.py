"""Averages of a run's weights of any length, put together after the run from those that it stored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inlay.base.families import load_base
from inlay.errors import ArtifactError, ConfigError
from inlay.files import read_tensors, write_tensors, write_text, writing
from inlay.methods import merge_all
from inlay.run.attach import attach
from inlay.run.config import JobConfig
from inlay.run.directory import PIPELINE, RUN_FILE, load_run, method_file, read_config
from inlay.run.load import to_yaml
from inlay.run.record import command_line, now, read_record, write_record
from inlay.train.profiles import LONGEST, Profile, coefficients
from inlay.train.settings import PowerEma
from inlay.train.snapshots import AVERAGES, combine, read_profiles, snapshots


@dataclass(frozen=True)
class Averaged:
    """An average that was put together."""

    directory: Path
    """A run directory of its own, with a result like the run's."""
    sigma_rel: float
    snapshots: int
    """Moments of the run from which it was made."""
    distance: float
    """Norm of the difference between its profile and the one wanted, over the norm of the latter."""


def average(
    directory: str | Path,
    sigma_rel: float,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Averaged:
    """Write what a run would have produced with averages of another length.

    Args:
        directory: a finished run with ``train.ema: {name: power}``.
        sigma_rel: the length wanted, in (0, 0.28].
        out: a new directory for the result; by default ``averages/sigma-rel-...`` in the run directory.
        progress: told (tensors done, in all).

    Returns:
        What was made; its directory is one that :func:`inlay.sample` draws with.

    Raises:
        ConfigError: the directory holds no such run, the length is not possible, or ``out`` is there already.
        ArtifactError: a snapshot is missing or broken, or the result cannot be written.
    """
    directory = Path(directory)
    config = read_config(directory)
    record = read_record(directory)
    if not 0 < sigma_rel <= LONGEST:
        raise ConfigError(f"sigma_rel {sigma_rel:g}: must be above 0 and at most {LONGEST} (that of a plain mean)")
    if not isinstance(config.train.ema, PowerEma):
        raise ConfigError(
            f"{directory}: the run stored no averages to choose from; train with train.ema={{name: power}}"
        )
    if record is None or record["status"] != "done":
        raise ConfigError(f"{directory}: the run has not finished; go on with `inlay tune {directory / RUN_FILE}`")
    target = Path(out) if out is not None else directory / AVERAGES / f"sigma-rel-{sigma_rel:g}"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is there already; give another place")
    taken = snapshots(directory)
    sources = read_profiles(taken)
    if not sources:
        raise ArtifactError(f"{directory / AVERAGES}: the stored averages are gone; nothing can be made without them")
    factors, distance = coefficients(list(sources), Profile(sigma_rel, record["costs"]["steps"]))
    made = Averaged(target, sigma_rel, len(taken), distance)

    # A denoiser from scratch is as the run has saved it; all its weights are about to be replaced.
    base = load_base(config.base) if config.scratch is None else load_run(directory)[0]
    if config.scratch is None and base.file_hash != record["base"]["hash"]:
        raise ArtifactError(f"{directory}: tuned on another {config.base.model}; its weights have changed since")
    attachments = attach(config.methods, base, config.seed)
    names = {
        f"{index}.{name}": parameter
        for index, attachment in enumerate(attachments)
        for name, parameter in attachment.parameters().items()
    }
    with torch.no_grad():
        for done, (name, parameter) in enumerate(names.items(), start=1):
            parameter.copy_(combine(sources, factors.tolist(), name))
            if progress is not None:
                progress(done, len(names))

    metadata = {"inlay.sigma_rel": repr(sigma_rel)}
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    with writing(target):
        try:
            unfinished.mkdir(parents=True)
            files = []
            if any(method.result == "pipeline" for method in config.methods):
                merge_all(attachments)
                base.save_pipeline(unfinished / PIPELINE)
                files.append(PIPELINE)
            else:
                for index, attachment in enumerate(attachments):
                    attachment.at_step(record["costs"]["steps"] - 1)
                    path = method_file(unfinished, index, attachment.method)
                    own = read_tensors(method_file(directory, index, attachment.method))[1]
                    write_tensors(path, attachment.state(), {**own, **metadata})
                    files.append(str(path.relative_to(unfinished)))
            write_text(unfinished / RUN_FILE, to_yaml(config))
            write_record(unfinished, _record(record, config, made, files))
            if target.exists():
                target.rmdir()
            os.replace(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return made


def _record(record: dict[str, Any], config: JobConfig, made: Averaged, files: list[str]) -> dict[str, Any]:
    """Return the run's record as that of this average: what was measured of other weights is not this one's."""
    assert isinstance(config.train.ema, PowerEma)
    stored = config.train.ema.sigma_rel
    return {
        **record,
        "ended": now(),
        "command": command_line(),
        "average": {
            "sigma_rel": made.sigma_rel,
            "stored_sigma_rel": list(stored),
            "snapshots": made.snapshots,
            "distance": made.distance,
        },
        "metrics": {**dict.fromkeys(record["metrics"]), "smoothed_loss": record["metrics"]["smoothed_loss"]},
        "missing": {"validation_loss": "not measured of this average"},
        "files": files,
    }
