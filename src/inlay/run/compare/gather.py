"""Runs from their directories, as far as they came: finished, stopped, or left without a record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inlay.errors import ArtifactError, ConfigError, InlayError
from inlay.run.layout import RUN_FILE, TRACE
from inlay.run.load import read_run_file
from inlay.run.record import read_record

EVALUATION = "evaluation.json"
"""What `inlay evaluate` has measured of a run since; the record keeps what the run measured itself."""
Status = Literal["done", "stopped", "failed", "unfinished"]


@dataclass(frozen=True)
class Run:
    """What a run directory says of its run. The settings may be those of another version of inlay."""

    name: str
    """The directory's name, longer where two have the same."""
    directory: Path
    status: Status
    says: str
    """How far it came, in words; empty for a finished run."""
    config: dict[str, Any]
    record: dict[str, Any]
    """Empty where there is none."""
    trace: list[dict[str, Any]]

    @property
    def done(self) -> bool:
        """Whether it has spent its budget and saved its result."""
        return self.status == "done"

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return self.trace[-1]["step"] if self.trace else 0

    def at(self, *keys: str) -> Any:
        """Return an entry of the record by its path, None where it is absent."""
        place: Any = self.record
        for key in keys:
            place = place.get(key) if isinstance(place, dict) else None
        return place

    def setting(self, *keys: str) -> Any:
        """Return a setting by its path, None where it is absent."""
        place: Any = self.config
        for key in keys:
            place = place.get(key) if isinstance(place, dict) else None
        return place


def gather(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Return the runs at ``paths`` in their order, and a sentence for each path that holds none.

    Raises:
        ConfigError: a path does not exist, or none of them is a run directory.
    """
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise ConfigError(f"{', '.join(absent)}: no such directory")
    # Each once, and as it was given: pages are passed on, and need not tell where somebody keeps their files.
    places = list({path.resolve(): path for path in reversed(paths)}.values())[::-1]
    directories = [path for path in places if (path / RUN_FILE).is_file() and (path / TRACE).is_file()]
    if not directories:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: no run directory; one has {RUN_FILE} and {TRACE}, as `inlay tune` writes"
        )
    left_out = [
        f"{path.resolve().name}: left out, because it is no run directory" for path in places if path not in directories
    ]
    names = _names(directories)
    runs = []
    for directory, name in zip(directories, names, strict=True):
        try:
            runs.append(_read(directory, name))
        except InlayError as error:
            left_out.append(f"{name}: left out, because a file of it is broken: {error}")
    if not runs:
        raise ConfigError("; ".join(left_out))
    return runs, left_out


def _names(directories: Sequence[Path]) -> list[str]:
    """Return as many parts from the end of each path as tell them apart."""
    parts = [directory.resolve().parts for directory in directories]
    for depth in range(1, max(map(len, parts))):
        names = ["/".join(own[-depth:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(own) for own in parts]


def _read(directory: Path, name: str) -> Run:
    config = read_run_file(directory / RUN_FILE)
    record = _with_evaluation(read_record(directory) or {}, directory / EVALUATION)
    trace = []
    for line in (directory / TRACE).read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # the last line of a run at work, or of a killed one, may be half a one
            trace.append(json.loads(line))
    planned = (config.get("train") or {}).get("steps")
    way = f"after step {trace[-1]['step'] if trace else 0}" + (f" of {planned}" if planned else "")
    stated = record.get("status")
    if stated == "done":
        return Run(name, directory, "done", "", config, record, trace)
    if stated == "stopped":
        return Run(name, directory, "stopped", f"stopped {way}", config, record, trace)
    if stated is not None:
        reason = record.get("error") or record.get("reason")
        return Run(
            name, directory, "failed", f"failed {way}" + (f": {reason}" if reason else ""), config, record, trace
        )
    says = f"no record; its trace ends {way}, so it failed, was killed, or is at work"
    return Run(name, directory, "unfinished", says, config, record, trace)


def _with_evaluation(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a record with the figures of a later evaluation beside its own, or in their place."""
    if not record or not path.is_file():
        return record
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: not an evaluation: {error}") from None
    merged = {key: {**(record.get(key) or {}), **(found.get(key) or {})} for key in ("metrics", "metric_details")}
    missing = {**(record.get("missing") or {}), **(found.get("missing") or {})}
    missing = {name: why for name, why in missing.items() if merged["metrics"].get(name) is None}
    return {**record, **merged, "missing": missing, "symptoms": found.get("symptoms") or record.get("symptoms")}
