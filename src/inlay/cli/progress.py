"""The progress of a run on the terminal."""

from __future__ import annotations

import sys
import time

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from inlay.cli.console import console, human_seconds
from inlay.train.loop import Progress as State

PLAIN_SECONDS = 20.0
"""Seconds between lines where the output is no terminal."""


class TerminalReporter:
    """Draws one bar for what is going on; writes plain lines where the output is no terminal or ``quiet``."""

    def __init__(self, to_stderr: bool = False):
        """Begin. With ``to_stderr`` standard output stays free for JSON."""
        from rich.console import Console

        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False) if to_stderr else console
        self._live = self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            transient=True,
        )
        self._task = None
        self._what = ""
        self._said_training = -PLAIN_SECONDS
        self._said = 0.0
        self._began = ("", 0, 0, 0.0)
        """Of the work that goes on: what it is, how much there is, how much was done at its beginning, and when."""
        self._done = 0

    def __enter__(self) -> TerminalReporter:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bar.stop()
        sys.stdout.flush()

    def phase(self, text: str) -> None:
        self._console.print(text)

    def note(self, text: str) -> None:
        self._console.print(f"note: {text}", style="yellow")

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._began[:2] != (what, total) or done < self._done:
            self._began, self._said = (what, total, done, now), now
        self._done = done
        _, _, first, began = self._began
        left = ""
        if first < done < total:
            left = f", {human_seconds((now - began) / (done - first) * (total - done))} left"
        self._show(what, done, total, f"{done}/{total}{left}")
        if not self._live and done == total:
            self._console.print(f"{what}: {total} done")
        elif not self._live and now - self._said >= PLAIN_SECONDS:
            self._said = now
            self._console.print(f"{what}: {done} of {total}{left}")

    def step(self, state: State) -> None:
        left = f", {human_seconds(state.seconds_left)} left" if state.seconds_left else ""
        speed = state.images_seen / max(state.seconds, 1e-9)
        facts = f"step {state.step}, loss {state.smoothed_loss:.4f}, {speed:.1f} images/s{left}"
        total = state.total_steps
        if total is None:
            left_seconds = state.seconds_left or 0.0
            self._show("training", round(state.seconds), round(state.seconds + left_seconds), facts)
        else:
            self._show("training", state.step, total, facts)
        if not self._live and (state.seconds - self._said_training >= PLAIN_SECONDS or state.step == total):
            self._said_training = state.seconds
            self._console.print(f"training: {facts}", soft_wrap=True)

    def _show(self, what: str, done: int, total: int, facts: str) -> None:
        if not self._live:
            return
        if what != self._what or self._task is None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._what = self._bar.add_task(what, total=total, facts=facts), what
        self._bar.update(self._task, completed=done, total=total, facts=facts)
