"""Everything that a comparison says, before it is laid out: for the page, the terminal and machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay.run.compare.figures import HELD_OUT, Column, Figure, columns
from inlay.run.compare.gather import Run, gather
from inlay.run.compare.notes import notes
from inlay.run.compare.quality import Reached, choose_quality, pareto_front, time_to_quality
from inlay.run.compare.settings import differences, method_labels


@dataclass(frozen=True)
class Comparison:
    """Runs, and what of them can be held against each other."""

    runs: tuple[Run, ...]
    labels: tuple[str, ...]
    """Each run's method in words."""
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    settings: dict[str, list[str | None]]
    """Settings that are not the same in all runs."""
    own_settings: dict[str, list[str | None]]
    """Settings that some of the runs do not have at all, and the others have alike."""
    reached: Reached
    quality: Column | None
    """The metric that is drawn against costs."""

    def costs(self, index: int) -> dict[str, Any]:
        """Return what a run cost; each value is None where it is not known."""
        run = self.runs[index]
        return {
            "trainable_parameters": run.at("costs", "trainable_parameters"),
            "denoiser_parameters": run.at("costs", "denoiser_parameters"),
            "result_bytes": run.at("costs", "result_bytes"),
            "peak_bytes": run.at("costs", "peak_bytes"),
            "seconds_per_step": run.at("costs", "seconds_per_step") or _seconds_per_step(run),
            "training_seconds": run.at("costs", "training_seconds") or _training_seconds(run),
            "steps": run.steps,
            "seconds_to_level": self.reached.seconds[index],
        }

    def against(self, cost: str) -> tuple[dict[int, tuple[float, float]], list[int]]:
        """Return (cost, quality) of each run that has both, by number, and the finished ones on the Pareto front."""
        if self.quality is None:
            return {}, []
        assert self.quality.better is not None
        points = {}
        for index, figure in enumerate(self.quality.figures):
            spent = self.costs(index)[cost]
            if figure.value is not None and spent:
                points[index] = (float(spent), figure.value)
        ended = {index: point for index, point in points.items() if self.runs[index].done}
        return points, pareto_front(ended, self.quality.better)


def compare(paths: Sequence[Path], quality: str | None = None) -> Comparison:
    """Read runs and find what of them can be compared.

    Args:
        paths: run directories; others are left out with a note.
        quality: the metric to draw against costs, by its name in the records; by default the first that can be.

    Raises:
        ConfigError: a path does not exist, none is a run, or the metric cannot be drawn.
    """
    runs, left_out = gather(paths)
    found = columns(runs)
    held_out = next((column for column in found if column.name == HELD_OUT), None)
    differing = differences([run.config for run in runs])
    own = {key: row for key, row in differing.items() if len({value for value in row if value is not None}) == 1}
    return Comparison(
        tuple(runs),
        tuple(method_labels(runs)),
        (*notes(runs), *left_out),
        tuple(found),
        {key: row for key, row in differing.items() if key not in own},
        own,
        time_to_quality(runs, held_out),
        choose_quality(found, quality),
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for machines."""
    names = [run.name for run in comparison.runs]
    fronts = {cost: comparison.against(cost)[1] for cost in ("trainable_parameters", "training_seconds")}
    every = {**comparison.settings, **comparison.own_settings}
    return {
        "notes": list(comparison.notes),
        "runs": [
            {
                "name": run.name,
                "directory": str(run.directory),
                "status": run.status,
                "says": run.says,
                "method": label,
                "costs": comparison.costs(index),
                "metrics": {column.name: _figure(column.figures[index]) for column in comparison.columns},
                "symptoms": run.at("symptoms"),
            }
            for index, (run, label) in enumerate(zip(comparison.runs, comparison.labels, strict=True))
        ],
        "metrics": [
            {
                "name": column.name,
                "better": column.better,
                "comparable": column.comparable,
                "note": column.note,
                "best": [names[index] for index in sorted(column.best)],
            }
            for column in comparison.columns
        ],
        "level": {"value": comparison.reached.level, "reason": comparison.reached.reason},
        "quality": comparison.quality.name if comparison.quality else None,
        "fronts": {cost: [names[index] for index in front] for cost, front in fronts.items()},
        "settings": {key: dict(zip(names, row, strict=True)) for key, row in every.items()},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {"value": figure.value, "interval": figure.interval, "n": figure.n, "reason": figure.reason}


def _training_seconds(run: Run) -> float | None:
    return run.trace[-1].get("seconds") if run.trace else None


def _seconds_per_step(run: Run) -> float | None:
    seconds = _training_seconds(run)
    return seconds / run.steps if seconds and run.steps else None
