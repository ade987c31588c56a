"""Ctrl-C, and what systems send before they end a process, as a request to stop after the step."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ONE_REQUEST_SECONDS = 1.0
"""Signals that follow the first so closely are the same Ctrl-C: a launcher passes on what the terminal sent too."""


class GracefulStop:
    """Whether the user asked to stop."""

    def __init__(self, says: bool):
        """Have not been asked.

        Args:
            says: whether this process confirms a request on standard error.
        """
        self.says = says
        self._first: float | None = None

    @property
    def asked(self) -> bool:
        """Whether there was a request."""
        return self._first is not None

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Take the first Ctrl-C or SIGTERM inside a ``with`` block as a request; a second one ends at once."""

        def request(number: int, frame: Any) -> None:
            now = time.monotonic()
            if self._first is None:
                self._first = now
                if self.says:
                    print("\nstopping after this step; once more to end at once", file=sys.stderr)
            elif now - self._first > ONE_REQUEST_SECONDS:
                raise KeyboardInterrupt

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, request)
        except ValueError:  # not the main thread: whoever runs us there stops us in another way
            pass
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
