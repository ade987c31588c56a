"""The choice of a tuned setting, a learning rate as a rule, from the runs that tried its levels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.run.record import read_record
from inlay.study.settings import Level, Tuning

if TYPE_CHECKING:
    from inlay.study.cells import Cell


@dataclass(frozen=True)
class Choice:
    """What was chosen for a group, and why."""

    group: str
    level: Level
    """None where no level has a result."""
    scores: Mapping[str, float | None]
    """Mean of the metric over seeds by level; null where a run failed or measured nothing."""


def decide(tuning: Tuning, cells: Iterable[Cell], directory: Path) -> list[Choice]:
    """Choose a level for each group from the records of its runs, which have all ended.

    A level of which one seed failed is out: it may fail again. Of equal levels the first is taken.

    Args:
        tuning: the study's.
        cells: of the first stage.
        directory: where the cells' run directories lie.
    """
    found: dict[str, dict[Level, list[float | None]]] = {}
    for cell in cells:
        assert cell.group is not None
        record = read_record(directory / cell.id)
        value = record["metrics"].get(tuning.metric) if record is not None and record["status"] == "done" else None
        found.setdefault(cell.group, {}).setdefault(cell.tuned, []).append(value)
    choices = []
    for group, levels in found.items():
        scores = {level: _mean(values) for level, values in levels.items()}
        sign = -1 if tuning.higher_is_better else 1
        usable = {level: score for level, score in scores.items() if score is not None}
        best = min(usable, key=lambda level: sign * usable[level]) if usable else None
        choices.append(Choice(group, best, {str(level): score for level, score in scores.items()}))
    return choices


def _mean(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else None
