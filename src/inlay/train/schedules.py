"""Learning-rate schedules: the factor on the optimizer's learning rate at a step, as a pure function."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from inlay.errors import ConfigError
from inlay.settings import Settings


class LearningRateSchedule(Settings):
    """How the learning rate changes during a run, as a factor on its configured value."""

    name: Literal["constant", "linear", "cosine"] = "constant"
    """`constant` stays, `linear` falls in a line, `cosine` along half a cosine wave."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The factor rises in a line over this many optimizer steps before anything falls."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where `linear` and `cosine` end, as a factor."""


def multiplier(
    settings: LearningRateSchedule, step: int, total_steps: int | None = None, progress: float | None = None
) -> float:
    """Return the factor on the learning rate for one optimizer step.

    Args:
        settings: the schedule.
        step: optimizer steps done before this one, from 0.
        total_steps: the run's length, where it is known.
        progress: the share of the budget already spent, in [0, 1], for runs that end with the clock; it then decides
            how far the factor has fallen, while warm-up still counts steps.

    Returns:
        A factor in [0, 1]; above 0 at step 0.

    Raises:
        ConfigError: warm-up is longer than the run.
        ValueError: a falling schedule has neither ``total_steps`` nor ``progress``.
    """
    if total_steps is not None and settings.warmup_steps > total_steps:
        raise ConfigError(f"warmup_steps is {settings.warmup_steps}, longer than the run of {total_steps} steps")
    rise = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.name == "constant":
        return rise
    if progress is None:
        if total_steps is None:
            raise ValueError(f"schedule {settings.name!r} needs total_steps or progress")
        progress = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
    progress = min(1.0, max(0.0, progress))
    left = 1 - progress if settings.name == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return rise * (settings.final + (1 - settings.final) * left)
