"""A study from its cells to their records: what to run next, what to write down, when to stop."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inlay.errors import ArtifactError
from inlay.run.check import check
from inlay.run.config import JobConfig
from inlay.study.cells import Cell, Expansion, expand
from inlay.study.directory import (
    CELLS,
    alone,
    cell_directory,
    check_place,
    choices,
    done_records,
    states,
    write_design,
)
from inlay.study.ledger import Ledger, read_ledger
from inlay.study.pool import Executor
from inlay.study.settings import Study
from inlay.study.tuning import decide
from inlay.study.worker import READY, Task

WAIT_SECONDS = 1.0
"""At most between two looks at the workers."""
CACHE = "cache"
MANY_LOST = 3
"""Cells in a row that end with their worker before one has a result, after which something must be wrong with all."""


@dataclass(frozen=True)
class Counts:
    """How far a study is."""

    total: int
    done: int
    failed: int
    running: int
    seconds_left: float | None
    """By the mean of the stage's cells that have ended; None before one has."""

    @property
    def left(self) -> int:
        """Cells that have no end yet and do not run."""
        return self.total - self.done - self.failed - self.running


class Watcher(Protocol):
    """Told how a study goes."""

    def note(self, text: str) -> None:
        """The user should know this."""
        ...

    def ended(self, cell: str, kind: str, reason: str | None, counts: Counts) -> None:
        """A cell is `done`, `failed` (for good), `retried` or `stopped`."""
        ...

    def working(self, running: dict[str, str], counts: Counts) -> None:
        """Cells are under way: how far each is."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a sitting ended."""

    counts: Counts
    stopped: bool
    """Whether the user ended it before the last cell."""


def run_study(study: Study, directory: Path, executor: Executor, watcher: Watcher, again: bool = False) -> Outcome:
    """Run whatever has no result yet, until everything has one or the user stops.

    Args:
        study: the study file.
        directory: the study directory; made when absent.
        executor: runs cells; closed at the end.
        watcher: told how it goes.
        again: whether cells that failed for good are taken up again.

    Raises:
        ConfigError: the study is wrong, its data are missing, another process is at work on it, or its base has
            changed since earlier cells.
        ArtifactError: the disk is full; `run` again goes on from there.
    """
    try:
        expansion = expand(study, choices(directory))
        check_place(directory, expansion.cells, study)
        check_cells(expansion.cells)
        with alone(directory, {"cells": len(expansion.cells)}):
            return _Driver(study, directory, executor, watcher, again).run()
    finally:
        executor.close()


def check_cells(cells: Sequence[Cell]) -> None:
    """Look for what would make cells fail after others have run: weights, pictures, captions that are not here.

    Raises:
        InlayError: names what is missing.
    """
    from inlay.data.dataset import load_dataset

    seen: set[str] = set()
    for cell in cells:
        key = _cache_key(cell.config) + "".join(method.name for method in cell.config.methods)
        if key not in seen:
            seen.add(key)
            architecture = check(cell.config)
            load_dataset(cell.config.data, architecture.resolution, cell.config.seed, architecture.granularity)


def _cache_key(config: JobConfig) -> str:
    """Return a text for what decides latents and text states, to the last bit: also in which company they are made."""
    facts = {
        "base": config.base.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json"),
        "precision": config.train.precision,
        "seed": config.seed if config.data.validation else None,  # decides which pictures are held out
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class _Driver:
    """The one process that decides and writes the ledger."""

    def __init__(self, study: Study, directory: Path, executor: Executor, watcher: Watcher, again: bool):
        self.study, self.directory = study, directory
        self.executor, self.watcher = executor, watcher
        self.ledger = Ledger(directory)
        self.again = again
        self.running: dict[str, tuple[Cell, float]] = {}
        self.steps: dict[str, str] = {}
        self.seconds: list[float] = []
        """That the stage's cells took, in earlier sittings too; those of the stage before where none has ended."""
        self.ended_here = 0
        self.cells: Sequence[Cell] = ()
        self.total = self.done = self.failed = 0
        self.stopping = False
        self.lost_in_a_row = 0

    def run(self) -> Outcome:
        """Run both stages."""
        ledger, study, directory = self.ledger, self.study, self.directory
        try:
            expansion = self._expand()
            ledger.append("run", cells=len(expansion.cells), retries=study.execution.retries)
            if self.again:
                for cell, state in states(directory, _ids(expansion.cells), study.execution.retries).items():
                    if state.status == "failed":
                        ledger.append("again", cell=cell)
            with self._stoppable():
                if study.tuning is not None:
                    self._stage(expansion, expansion.tuning)
                    if not self.stopping:
                        self._choose(expansion)
                        expansion = self._expand()
                if not self.stopping:
                    self._stage(expansion, self._with_setting(expansion))
            ledger.append("stop" if self.stopping else "end", done=self.done, failed=self.failed)
            return Outcome(self.counts(), self.stopping)
        finally:
            ledger.close()

    def _expand(self) -> Expansion:
        expansion = expand(self.study, choices(self.directory))
        write_design(self.directory, self.study, expansion)
        return expansion

    def _choose(self, expansion: Expansion) -> None:
        """Write down the level of each group, once."""
        assert self.study.tuning is not None
        known = choices(self.directory)
        for choice in decide(self.study.tuning, expansion.tuning, self.directory / CELLS):
            if known.get(choice.group) is None:
                facts = {"key": self.study.tuning.key, "metric": self.study.tuning.metric, "scores": choice.scores}
                self.ledger.append("choice", group=choice.group, level=choice.level, **facts)

    def _with_setting(self, expansion: Expansion) -> list[Cell]:
        """Return the cells that can be run; those whose setting was not found have failed for that reason."""
        if self.study.tuning is None:
            return list(expansion.main)
        found = states(self.directory, _ids(expansion.main), self.study.execution.retries)
        for cell in expansion.main:
            if cell.tuned is None and found[cell.id].status != "failed":
                reason = f"no level of {self.study.tuning.key} has a result for {cell.group}"
                for _ in range(self.study.execution.retries + 1 - found[cell.id].attempts):
                    self.ledger.append("failed", cell=cell.id, reason=reason)
        return list(expansion.main)

    def _stage(self, expansion: Expansion, cells: Sequence[Cell]) -> None:
        retries = self.study.execution.retries
        found = states(self.directory, _ids(expansion.cells), retries)
        ends = [event for event in read_ledger(self.directory) if event["event"] == "done"]
        recorded = {event["cell"]: event.get("seconds") for event in ends}
        self.seconds = [took for cell in cells if (took := recorded.get(cell.id)) is not None] or self.seconds
        self.cells = expansion.cells
        self.total = len(expansion.cells)
        self.done = sum(state.status == "done" for state in found.values())
        self.failed = sum(state.status == "failed" for state in found.values())
        for cell in cells:
            if found[cell.id].status == "done" and cell.id not in recorded:
                # It ended just before the process that should have written so.
                self.ledger.append("done", cell=cell.id, seconds=None)
        waiting = [cell for cell in cells if found[cell.id].status == "missing"]
        attempts = {cell.id: found[cell.id].attempts for cell in cells}
        while (waiting and not self.stopping) or self.running:
            if not self.stopping:
                self._fill(waiting, attempts)
            for event in self.executor.wait(WAIT_SECONDS):
                self._take(event, waiting, attempts)
            self.watcher.working({cell: self.steps.get(cell, "beginning") for cell in self.running}, self.counts())

    def _fill(self, waiting: list[Cell], attempts: dict[str, int]) -> None:
        """Submit what may begin. Where a cache is not complete, one cell fills it before others read it."""
        filling = {_cache_key(cell.config) for cell, _ in self.running.values()}
        for cell in list(waiting):
            if self.executor.free() <= 0:
                return
            key = _cache_key(cell.config)
            cache = self.directory / CACHE / key
            if key in filling and not (cache / READY).exists():
                continue
            filling.add(key)
            waiting.remove(cell)
            self.ledger.append("start", cell=cell.id, attempt=attempts[cell.id] + 1)
            self.running[cell.id] = cell, time.monotonic()
            self.executor.submit(
                Task(
                    cell.id,
                    str(cell_directory(self.directory, cell.id).resolve()),
                    str(cache.resolve()),
                    cell.config.model_dump(mode="json"),
                    self.study.execution.cpus,
                )
            )

    def _take(self, event: dict[str, Any], waiting: list[Cell], attempts: dict[str, int]) -> None:
        name, kind = event["cell"], event["kind"]
        if kind == "step":
            total = event.get("total")
            self.steps[name] = f"step {event['step']}" + (f" of {total}" if total else "")
            return
        cell, began = self.running.pop(name)
        self.steps.pop(name, None)
        reason = event.get("reason")
        if kind == "lost" and self.stopping:  # it had not yet begun to listen to a request to stop
            kind = "stopped"
        self.lost_in_a_row = self.lost_in_a_row + 1 if kind == "lost" else 0
        if event.get("fatal"):
            self.ledger.append("stop", cell=name, reason=reason)
            free = shutil.disk_usage(self.directory).free
            raise ArtifactError(
                f"{self.directory}: the disk is full ({free // 2**20} MiB free): {reason}; make room, then the same "
                "command goes on"
            )
        if kind == "done":
            self.done += 1
            self.ended_here += 1
            self.seconds.append(time.monotonic() - began)
            self.ledger.append("done", cell=name, seconds=event.get("seconds"))
            if self.ended_here == 1:  # the first of this sitting says on which weights the others will be
                found = states(self.directory, _ids(self.cells), self.study.execution.retries)
                done_records(self.directory, [cell for cell, state in found.items() if state.status == "done"])
        elif kind in ("failed", "lost"):
            attempts[name] += 1
            self.ledger.append(kind, cell=name, attempt=attempts[name], reason=reason)
            if attempts[name] > self.study.execution.retries:
                self.failed += 1
                kind = "failed"
            else:
                waiting.append(cell)
                kind = "retried"
        self.watcher.ended(name, kind, reason, self.counts())
        if self.lost_in_a_row >= MANY_LOST and not self.ended_here:
            raise ArtifactError(f"{self.directory}: {MANY_LOST} workers ended without a result in a row: {reason}")

    def counts(self) -> Counts:
        """Return how far the study is."""
        left = None
        rest = self.total - self.done - self.failed
        if self.seconds:
            at_once = max(1, len(self.running) + max(0, self.executor.free()))
            now = time.monotonic()
            mean = sum(self.seconds) / len(self.seconds)
            spent = sum(min(mean, now - began) for _, began in self.running.values())
            left = max(0.0, rest * mean - spent) / min(at_once, max(1, rest))
        return Counts(self.total, self.done, self.failed, len(self.running), left)

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let the first Ctrl-C or SIGTERM stop cells after their step; a second one ends them at once."""

        def request(number: int, frame: Any) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            self.watcher.note("stopping: running cells save where they are; once more to end at once")
            self.executor.stop()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ids(cells: Sequence[Cell]) -> list[str]:
    return [cell.id for cell in cells]
