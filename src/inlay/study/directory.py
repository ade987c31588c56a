"""The study directory: the resolved study file, the design, the ledger, and the cells with their results.

    study.yaml      the study as it was given, with every default written out
    design.json     its cells, and what is left out and why
    ledger.jsonl    what happened, in order
    cells/<id>/     the run directory of a cell
    cache/          latents and text states, apart for each combination of base and data
    logs/           what workers printed

A cell is done when its run directory holds the record of a finished run, whatever the ledger says: that is all that a
restart looks at.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inlay.errors import ConfigError
from inlay.files import write_json, write_text, writing
from inlay.run.load import to_yaml
from inlay.run.record import now, read_record
from inlay.study.ledger import read_ledger
from inlay.study.settings import STUDY_FILE, Study, read_study

if TYPE_CHECKING:
    from inlay.study.cells import Cell, Expansion

DESIGN = "design.json"
CELLS = "cells"
DRIVER = "driver.json"
"""Who is at work on the study."""


@dataclass(frozen=True)
class State:
    """How far a cell is, by its run directory and the ledger."""

    status: Literal["done", "failed", "missing"]
    reason: str | None
    attempts: int
    """Ends without a result since the beginning, or since failed cells were taken up again."""


def cell_directory(directory: Path, cell: str) -> Path:
    """Return the run directory of a cell."""
    return directory / CELLS / cell


def write_design(directory: Path, study: Study, expansion: Expansion) -> None:
    """Write what the study is and which cells it has.

    Raises:
        ArtifactError: the place cannot be written.
    """
    write_json(
        directory / DESIGN,
        {
            "title": study.title,
            "design": expansion.design,
            "combinations": expansion.combinations,
            "metrics": list(study.metrics),
            "higher_is_better": study.higher,
            "cells": [cell.to_json() for cell in expansion.cells],
            "left_out": [
                {"reason": one.reason, "count": one.count, "example": dict(one.example)} for one in expansion.left_out
            ],
        },
    )
    write_text(directory / STUDY_FILE, to_yaml(study))


def read_design(directory: Path) -> dict[str, Any]:
    """Return the design of a study directory.

    Raises:
        ConfigError: there is none.
    """
    try:
        return json.loads((directory / DESIGN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{directory}: not a study directory; it has no {DESIGN}, which `inlay study run` writes"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{directory / DESIGN}: not a design: {error}") from None


def check_place(directory: Path, cells: Sequence[Cell], study: Study) -> None:
    """Refuse a directory with other things in it, or whose results would not be in the study any more.

    A study may grow: by seeds, levels, tasks.

    Raises:
        ConfigError: says what is in the way.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ConfigError(f"{directory}: a file of that name is in the way")
    if not (directory / STUDY_FILE).exists():
        if any(not path.name.startswith(".") for path in directory.iterdir()):
            raise ConfigError(f"{directory}: the directory holds other files; give a new or empty one by --output")
        return
    if read_study(directory / STUDY_FILE) == study:
        return
    known = {cell.id for cell in cells}
    finished = [path.parent.name for path in sorted((directory / CELLS).glob("*/record.json"))]
    lost = [name for name in finished if name not in known]
    if lost:
        raise ConfigError(
            f"{directory}: holds {len(finished)} results, of which {len(lost)} belong to no cell of this study file, "
            f"such as {lost[0]}; settings that change make other cells: give another --output, or the study file that "
            f"they were made with ({directory / STUDY_FILE})"
        )


def done_records(directory: Path, cells: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the records of cells that are done, by their ids.

    Raises:
        ConfigError: the weights of a base have changed between them, so that they cannot be compared.
    """
    records: dict[str, dict[str, Any]] = {}
    bases: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        record = read_record(cell_directory(directory, cell))
        assert record is not None
        records[cell] = record
        base = record["base"]
        bases.setdefault(str(base["name"]), {}).setdefault(str(base["hash"]), []).append(cell)
    for base, of in bases.items():
        if len(of) > 1:
            parts = ", ".join(f"{len(names)} with {digest[:12]} (such as {names[0]})" for digest, names in of.items())
            raise ConfigError(
                f"{directory}: the weights of the base {base} have changed between its cells: {parts}; remove the "
                "directories of the old ones below cells/ and run the study again, or give another --output"
            )
    return records


def states(directory: Path, cells: Sequence[str], retries: int) -> dict[str, State]:
    """Return how far each cell is.

    Args:
        directory: the study directory.
        cells: their ids.
        retries: how often a cell is tried again; the study's.
    """
    failures: dict[str, list[str]] = {}
    for event in read_ledger(directory):
        if event["event"] in ("failed", "lost"):
            failures.setdefault(event["cell"], []).append(str(event.get("reason")))
        elif event["event"] == "again":
            failures.pop(event["cell"], None)
    found = {}
    for cell in cells:
        reasons = failures.get(cell, [])
        record = read_record(cell_directory(directory, cell))
        if record is not None and record["status"] == "done":
            found[cell] = State("done", None, len(reasons))
        elif len(reasons) > retries:
            found[cell] = State("failed", reasons[-1], len(reasons))
        else:
            found[cell] = State("missing", reasons[-1] if reasons else None, len(reasons))
    return found


def tuned(directory: Path) -> dict[str, dict[str, Any]]:
    """Return what was found for the tuned setting, by group: its `key`, the `level` chosen (None where all failed), and
    the `scores` of all levels by a `metric`, None where a run failed."""
    return {event["group"]: event for event in read_ledger(directory) if event["event"] == "choice"}


def choices(directory: Path) -> dict[str, Any]:
    """Return the levels that were chosen for the tuned setting, by group; None where all of a group failed."""
    return {group: event["level"] for group, event in tuned(directory).items()}


def at_work(directory: Path) -> dict[str, Any] | None:
    """Return who holds a study, None where nobody does."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with suppress(OSError, ValueError):
            return json.loads((directory / DRIVER).read_text(encoding="utf-8"))
        return {}
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(descriptor)
    return None


@contextmanager
def alone(directory: Path, facts: Mapping[str, Any]) -> Iterator[None]:
    """Hold a study for this process inside a ``with`` block; the lock ends with the process, however it ends.

    Raises:
        ConfigError: another process holds it; says which.
    """
    from inlay.run.directory import Occupied, alone_in

    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        with alone_in(directory):
            write_json(directory / DRIVER, {"pid": os.getpid(), "host": socket.gethostname(), "since": now(), **facts})
            yield
            (directory / DRIVER).unlink(missing_ok=True)
    except Occupied as error:
        try:
            who = json.loads((directory / DRIVER).read_text(encoding="utf-8"))
            said = f"process {who['pid']} on {who['host']}, since {who['since']}"
        except (OSError, ValueError, KeyError):
            raise error from None
        raise ConfigError(
            f"{directory}: another `inlay study run` is at work on this study ({said}); "
            f"`inlay study status {directory}` shows how far it is"
        ) from None
