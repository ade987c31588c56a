"""A base that stays in memory between runs."""

from __future__ import annotations

from inlay.base.contract import Base
from inlay.base.families import load_base
from inlay.base.scratch import Scratch
from inlay.base.settings import BaseSettings


class KeptBase:
    """Gives each run a base of its own, and reads it from the disk only when another one is asked for.

    A run changes its base: it casts, trains and merges weights. So runs get copies, which are equal to what loading
    would give; the one that is kept costs its size in the host's memory.
    """

    def __init__(self):
        """Keep none yet."""
        self._key: tuple[BaseSettings, str, int] | None = None
        self._base: Base | None = None

    def __call__(self, settings: BaseSettings, scratch: Scratch | None = None, seed: int = 0) -> Base:
        """Return a base; see :func:`inlay.base.families.load_base`."""
        key = settings, repr(scratch), seed if scratch is not None else 0
        if self._base is None or key != self._key:
            self._base = None  # two do not have to fit
            self._base = load_base(settings, scratch, seed)
            self._key = key
        return self._base.copy()
