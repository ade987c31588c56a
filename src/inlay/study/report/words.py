"""Numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from inlay.study.table import Level

UNKNOWN = "–"


def show(level: Level) -> str:
    """Return a level as text."""
    return f"{level:g}" if isinstance(level, float) else "none" if level is None else str(level)


def number(value: float | None, signed: bool = False) -> str:
    """Return three significant digits: 0.0123, 4.57, 1,230."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4:
        return f"{value:{'+' if signed else ''}.2e}"
    rounded = round(value, 2 - magnitude)
    return f"{rounded:{'+' if signed else ''},.{max(0, 2 - magnitude)}f}"


def p_value(p: float | None) -> str:
    """Return a p-value: "< 0.001" or three decimals."""
    if p is None:
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """Return a p-value in a sentence: "p < 0.001", "p = 0.012"."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def percent(share: float | None) -> str:
    """Return a share in whole percent; one below 0, which estimates of a share can be, as 0."""
    return UNKNOWN if share is None else f"{100 * max(0.0, share):.0f}\N{NO-BREAK SPACE}%"


def listed(items: Sequence[str], most: int = 6) -> str:
    """Return "a, b and c"; of many, the first and how many more."""
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def plural(count: int, noun: str) -> str:
    """Return "1 cell", "12 cells"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def verb(count: int, one: str = "is", more: str = "are") -> str:
    """Return the form of a verb for a number of things."""
    return one if count == 1 else more


def size(count: float) -> str:
    """Return bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1023.5 or unit == "GiB":
            return f"{number(count)} {unit}"
        count /= 1024
    return UNKNOWN


def cost(name: str, value: float | None) -> str:
    """Return a cost with its unit."""
    if value is None:
        return UNKNOWN
    if name.endswith("bytes"):
        return size(value)
    if name.endswith(("seconds", "seconds_per_step")):
        return f"{number(value)} s"
    return f"{value:,.0f}"


COSTS = {
    "training_seconds": "training time",
    "trainable_parameters": "trained parameters",
    "peak_bytes": "peak memory",
    "result_bytes": "file",
    "seconds_per_step": "time a step",
}
UNITS = {"training_seconds": "s", "peak_bytes": "MiB", "result_bytes": "kB", "seconds_per_step": "s"}
SCALES = {"peak_bytes": 2**20, "result_bytes": 1000}
"""Titles of costs; the units in which pictures show them, and what one unit is."""
