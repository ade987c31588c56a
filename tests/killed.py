"""A run that ends in the middle of a step, as one that is killed does."""

from __future__ import annotations

from typing import Any


class Killed(Exception):
    """Stands for a process that ends in the middle of a step."""


class KillAt:
    """Hears of a run's progress, and ends it."""

    def __init__(self, step: int):
        self.at = step

    def phase(self, text: str): ...
    def note(self, text: str): ...
    def progress(self, what: str, done: int, total: int): ...

    def step(self, state: Any):
        if state.step == self.at:
            raise Killed
