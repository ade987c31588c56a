"""Small studies for tests, and a way to run them in the test's own process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inlay.run.kept_base import KeptBase
from inlay.run.load import validate
from inlay.study.settings import Study
from inlay.study.worker import Task, run_cell


def stated(base: Path, photos: Path, measured: Sequence[str] = (), **changes: Any) -> dict[str, Any]:
    """Return a study file of a tiny base: two pairs of positions, two scales, a run of a few steps.

    Args:
        base: the base's directory.
        photos: a folder of pictures.
        measured: metrics that every run measures at its end.
        changes: keys of the study file.
    """
    run = {
        "base": str(base),
        "data": {"source": str(photos), "prompt": "a photo of sks dog", "validation": 2},
        "method": {"name": "adapter", "width": 2},
        "train": {"steps": 3, "batch_size": 2, "checkpoint_every": 1, "learning_rate": 1e-3},
        "preview": {"pictures": 1, "steps": 1},
    }
    if measured:
        run["evaluate"] = {"metrics": list(measured), "prompts": ["a photo of a dog"], "symptoms": False}
    factors = {
        "pair": {
            "levels": {
                "CA": {"method.input": "CA_out", "method.output": "FFN_in"},
                "SA": {"method": {"input": "SA_in", "output": "SA_in"}},
            }
        },
        "method.scale": [1, 2],
    }
    return {"run": run, "factors": factors, "seeds": 1, **changes}


def make(base: Path, photos: Path, **changes: Any) -> Study:
    """Return the study of :func:`stated`."""
    return validate(Study, stated(base, photos, **changes))


class Inline:
    """An executor that runs each cell at once, in this process."""

    def __init__(self, act=lambda task: None):
        """Call ``act`` before each cell; an event that it returns stands for the cell's end."""
        self.base, self.act = KeptBase(), act
        self.begun: list[str] = []
        self.closed = False
        self._events: list[dict[str, Any]] = []

    def free(self) -> int:
        return 1 - bool(self._events)

    def submit(self, task: Task) -> None:
        self.begun.append(task.cell)
        self._events.append(self.act(task) or run_cell(task, self.base, lambda event: None))

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events

    def stop(self) -> None: ...

    def close(self) -> None:
        self.closed = True


class Quiet:
    """A watcher that keeps what it is told."""

    def __init__(self):
        """Nothing yet."""
        self.ends: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.left: list[tuple[int, float | None]] = []
        """Cells and seconds left after each end."""

    def note(self, text: str) -> None:
        self.notes.append(text)

    def ended(self, cell, kind, reason, counts) -> None:
        self.ends.append((cell, kind))
        self.left.append((counts.left, counts.seconds_left))

    def working(self, running, counts) -> None: ...
