"""How good for how much: time to a level of quality that all runs reach, and which runs no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from inlay.errors import ConfigError
from inlay.run.compare.figures import HELD_OUT, TRAINING_LOSS, Column
from inlay.run.compare.gather import Run

LIKENESS = ("dino_i", "clip_i")
"""What says most about a subject; the publications' own measure comes first where there is one."""


@dataclass(frozen=True)
class Reached:
    """When each run first had a held-out loss that all of them reach."""

    level: float | None
    """The highest of the finished runs' lowest held-out losses; None where they cannot be compared."""
    seconds: tuple[float | None, ...]
    """In the training loop; None where a run did not come so low."""
    reason: str
    """Why there is no level; empty where there is one."""


def time_to_quality(runs: Sequence[Run], held_out: Column | None) -> Reached:
    """Return the training time until the held-out loss first was as low as the worst run's best.

    Args:
        runs: in any state; those without the measure do not count.
        held_out: its column, which says whether the runs' values belong together.
    """
    nothing = (None,) * len(runs)
    curves = [curve(run, HELD_OUT) for run in runs]
    measured = [points for points in curves if points]
    if not measured:
        return Reached(None, nothing, "no run held pictures out (data.validation)")
    if held_out is None or not held_out.comparable:
        return Reached(None, nothing, "held-out losses " + (held_out.note if held_out else "are of unfinished runs"))
    lowest = [min(point[2] for point in points) for points in measured]
    ended = [min(point[2] for point in points) for run, points in zip(runs, curves, strict=True) if run.done and points]
    level = max(ended or lowest)
    seconds = (next((at for _, at, value in points if value <= level), None) for points in curves)
    return Reached(level, tuple(seconds), "")


def curve(run: Run, key: str) -> list[tuple[int, float, float]]:
    """Return (step, seconds, value) wherever the trace has a value under ``key``, or among its metrics."""
    found = []
    for entry in run.trace:
        value = entry.get(key, (entry.get("metrics") or {}).get(key))
        if value is not None:
            found.append((entry["step"], entry.get("seconds", 0.0), value))
    return found


def smoothed(points: Sequence[tuple[int, float, float]], window: int) -> list[tuple[int, float, float]]:
    """Return running means over the last ``window`` values, from where half of them, or half of all, are there."""
    sums = [0.0, *accumulate(value for _, _, value in points)]
    return [
        (step, seconds, (sums[end] - sums[max(0, end - window)]) / min(end, window))
        for end, (step, seconds, _) in enumerate(points, 1)
        if 2 * end >= min(window, len(points))
    ]


def thinned(points: Sequence[tuple[int, float, float]], most: int = 400) -> list[tuple[int, float, float]]:
    """Return at most ``most`` of the points, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def pareto_front(points: Mapping[int, tuple[float, float]], better: str) -> list[int]:
    """Return the points (cost, quality) that no other one beats in one and at least equals in the other.

    Args:
        points: by any number.
        better: whether "higher" or "lower" quality is better.

    Returns:
        Their numbers, cheapest first.
    """
    sign = 1 if better == "higher" else -1

    def beaten(cost: float, quality: float) -> bool:
        return any(
            other <= cost and sign * its >= sign * quality and (other, its) != (cost, quality)
            for other, its in points.values()
        )

    return sorted((key for key, point in points.items() if not beaten(*point)), key=lambda key: points[key])


def choose_quality(columns: Sequence[Column], asked: str | None) -> Column | None:
    """Return the metric to draw against costs: the one asked for, else the first that can be, None without any.

    Raises:
        ConfigError: the metric asked for is not there, cannot be compared, or has no better end.
    """
    fit = [column for column in columns if _fits(column)]
    fit.sort(key=lambda column: not column.name.startswith(LIKENESS))
    if asked is None:
        return fit[0] if fit else None
    for column in columns:
        if column.name == asked:
            if column not in fit:
                why = column.note or "it is not known which values are better, or fewer than two runs have it"
                raise ConfigError(f"--quality {asked}: {why}")
            return column
    names = ", ".join(column.name for column in fit) or "none"
    raise ConfigError(f"--quality {asked}: no run has this metric; allowed: {names}")


def _fits(column: Column) -> bool:
    values = [figure.value for figure in column.figures if figure.value is not None]
    return column.comparable and column.better is not None and len(values) > 1 and column.name != TRAINING_LOSS
