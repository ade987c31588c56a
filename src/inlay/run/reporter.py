"""Who is told how a run goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from inlay.train.loop import Progress


class Reporter(Protocol):
    """Told how a run goes. The command line draws progress bars; a library user may want silence."""

    def phase(self, text: str) -> None:
        """Something begins."""
        ...

    def note(self, text: str) -> None:
        """The user should know this."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """Work before or after training goes on."""
        ...

    def step(self, state: Progress) -> None:
        """A training step is done."""
        ...


class Silent:
    """Says nothing."""

    def phase(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def progress(self, what: str, done: int, total: int) -> None: ...
    def step(self, state: Progress) -> None: ...
