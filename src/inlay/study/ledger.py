"""The ledger of a study: what happened, one JSON line an event, only ever added to.

One process writes, the one that holds the study's lock. Every line is shorter than a page of memory and goes to the
file in one write, which is on the disk before the next begins. A process or machine that ends in the middle leaves half
a line at most, which readers pass over.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from inlay.files import writing
from inlay.run.record import now

LEDGER = "ledger.jsonl"
LINE_BYTES = 4000
"""A line with its end; longer texts are cut."""


class Ledger:
    """Adds events to a study's ledger."""

    def __init__(self, directory: Path):
        """Open the ledger of a study directory, made when absent.

        Raises:
            ArtifactError: it cannot be written.
        """
        self.path = directory / LEDGER
        with writing(self.path):
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            if _ends_torn(self.path):
                os.write(self._file, b"\n")  # what a killed process left stays a line of its own, and unreadable

    def append(self, event: str, **facts: Any) -> None:
        """Add an event, and return when it is on the disk.

        Raises:
            ArtifactError: the disk is full, or the file has gone.
        """
        entry = {"time": now(), "event": event, **facts}
        line = _line(entry)
        texts = [name for name, value in facts.items() if isinstance(value, str)]
        while len(line) > LINE_BYTES and texts:
            longest = max(texts, key=lambda name: len(entry[name]))
            entry[longest] = entry[longest][: int(0.9 * len(entry[longest])) - 3] + "..."
            line = _line(entry)
        with writing(self.path):
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(28, "only a part of the line fits on the disk")
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_ledger(directory: Path) -> list[dict[str, Any]]:
    """Return the events of a study in their order; none where nothing has happened yet. Torn lines are passed over."""
    path = directory / LEDGER
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


def _line(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry, separators=(",", ":"), allow_nan=False) + "\n").encode()


def _ends_torn(path: Path) -> bool:
    if not path.is_file():
        return False  # a device, which has no end
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"
