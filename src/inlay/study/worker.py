"""Runs cells, one after another, in a process of its own that reads tasks from standard input.

Messages are JSON lines: a :class:`Task` in, events out. The process ends when its standard input does, so that none is
left behind by a driver that was killed; what it was at goes on from the run's last checkpoint.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from inlay.run.kept_base import KeptBase
    from inlay.train.loop import Progress

READY = "ready"
"""In a cache directory: everything is in it, so that cells that use it may run side by side."""
TOLD_SECONDS = 1.0
"""Between two messages about progress."""
OCCUPIED_SECONDS = 60.0
"""How long to wait for a run directory that a dying process still holds."""
REASON_CHARACTERS = 1500
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Task:
    """A cell to run."""

    cell: str
    directory: str
    cache: str
    """Where its latents and text states are kept."""
    config: dict[str, Any]
    cpus: int

    def to_json(self) -> dict[str, Any]:
        """Return the task as JSON-ready data."""
        return asdict(self)


Tell = Callable[[dict[str, Any]], None]


class CellReporter:
    """Passes on how far a run is, and marks its cache as complete."""

    def __init__(self, task: Task, tell: Tell):
        """Report on ``task`` by ``tell``."""
        self._task, self._tell = task, tell
        self._told = 0.0

    def phase(self, text: str) -> None:
        print(f"{self._task.cell}: {text}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(f"{self._task.cell}: note: {text}", file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int) -> None: ...

    def step(self, state: Progress) -> None:
        if self._told == 0.0:  # caches are built before the first step
            (Path(self._task.cache) / READY).touch()
        now = time.monotonic()
        if now - self._told >= TOLD_SECONDS:
            self._told = now
            self._tell({"kind": "step", "cell": self._task.cell, "step": state.step, "total": state.total_steps})


def run_cell(task: Task, base: KeptBase, tell: Tell) -> dict[str, Any]:
    """Run a cell to its end, or on from where it was, and return how it ended; raises nothing.

    Args:
        task: the cell.
        base: kept between cells.
        tell: is given events on the way.

    Returns:
        The last event: ``kind`` is `done`, `failed` or `stopped`; a failed one has a ``reason``, and is ``fatal`` where
        every other cell would fail too, because the disk is full.
    """
    import torch

    from inlay.run.config import PretrainConfig, RunConfig
    from inlay.run.directory import Occupied
    from inlay.run.job import execute
    from inlay.run.load import validate
    from inlay.train.peak import forget_peak

    began = time.monotonic()
    end: dict[str, Any] = {"kind": "stopped", "cell": task.cell}
    try:
        os.environ["INLAY_CACHE"] = task.cache
        Path(task.cache).mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(task.cpus)
        config = validate(PretrainConfig if "denoiser" in task.config else RunConfig, task.config, task.cell)
        forget_peak()
        while True:
            try:
                result = execute(config, Path(task.directory), CellReporter(task, tell), base)
                break
            except Occupied:
                if time.monotonic() - began > OCCUPIED_SECONDS:
                    raise
                time.sleep(0.2)
        if result.finished:
            end["kind"] = "done"
    except KeyboardInterrupt:
        pass
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]
        end |= {"kind": "failed", "reason": reason, "fatal": _disk_is_full(error)}
    return {**end, "seconds": round(time.monotonic() - began, 3)}


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if "os error 28" in str(error) or os.strerror(errno.ENOSPC) in str(error):  # how safetensors says it
            return True
        error = error.__cause__ or error.__context__
    return False


def main() -> None:
    """Read tasks and run them until standard input ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes where errors go
    tasks: queue.Queue[Task] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin, tasks), daemon=True).start()

    def tell(event: dict[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")

    from inlay.run.kept_base import KeptBase

    base = KeptBase()
    try:
        while True:
            tell(run_cell(tasks.get(), base, tell))
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(0)


def _listen(stream: TextIO, tasks: queue.Queue[Task]) -> None:
    for line in stream:
        tasks.put(Task(**json.loads(line)))
    os._exit(0)  # the driver has gone


if __name__ == "__main__":
    main()
