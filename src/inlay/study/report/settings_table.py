"""Settings: the combinations of levels, each with its mean over tasks and seeds, its costs and its failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from inlay.study.report.analysis import Analysis, setting_name
from inlay.study.statistics.comparisons import Mean
from inlay.study.statistics.sample import has
from inlay.study.table import Level, Row

COSTS = ("training_seconds", "trainable_parameters", "peak_bytes", "result_bytes", "seconds_per_step")


@dataclass(frozen=True)
class Setting:
    """One combination of the factors' levels."""

    levels: tuple[Level, ...]
    """In the order of the study's factors."""
    cells: int
    done: int
    failed: int
    values: tuple[float, ...]
    """One a cell that has the metric."""
    mean: float | None
    """With equal weight for every task and seed where the model of the settings gives it, so that one which failed
    on the hard task gains nothing; else over the cells there are."""
    half_width: float | None
    """Of the mean's 95 % interval; None where nothing tells."""
    costs: dict[str, float | None]
    """Means over the cells that have them."""
    ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is printed."""
        return setting_name(self.levels)


def settings_of(rows: Sequence[Row], analysis: Analysis) -> list[Setting]:
    """Return the settings of a study, best first, those without a value last."""
    groups: dict[tuple[Level, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.factors.get(name) for name in analysis.factors), []).append(row)
    modelled = _modelled(analysis)
    found = [_setting(levels, group, analysis.metric, modelled) for levels, group in groups.items()]
    sign = 1 if analysis.higher is False else -1
    return sorted(found, key=lambda one: (one.mean is None, sign * (one.mean or 0.0), one.name))


def _modelled(analysis: Analysis) -> dict[str, Mean]:
    """Return the means of the settings by name, as the joint model gives them."""
    factor = analysis.overall
    if factor is None and len(analysis.factors) == 1 and analysis.compared:
        factor = analysis.compared[0]
    return {} if factor is None or factor.alone else {setting_name([mean.level]): mean for mean in factor.means}


def _setting(levels: tuple[Level, ...], rows: Sequence[Row], metric: str, modelled: Mapping[str, Mean]) -> Setting:
    values = np.array([row.metrics[metric] for row in rows if has(row, metric)], dtype=np.float64)
    mean, half = float(values.mean()) if len(values) else None, None
    known = modelled.get(setting_name(levels))
    if known is not None and known.value is not None and known.bounds is not None:
        mean, half = known.value, (known.bounds.high - known.bounds.low) / 2
    elif len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Setting(
        levels,
        len(rows),
        sum(row.status == "done" for row in rows),
        sum(row.status == "failed" for row in rows),
        tuple(values.tolist()),
        mean,
        half,
        {cost: _mean([row.costs.get(cost) for row in rows if row.status == "done"]) for cost in COSTS},
        tuple(row.cell for row in rows),
    )


def differ(settings: Sequence[Setting], cost: str) -> bool:
    """Return whether settings cost so differently that it is worth a word: by a twentieth or more."""
    spent = [value for one in settings if (value := one.costs.get(cost)) is not None and value > 0]
    return len(spent) > 1 and max(spent) > 1.05 * min(spent)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def pareto(settings: Sequence[Setting], cost: str, better: Callable[[float, float], bool]) -> list[Setting]:
    """Return the settings that no other beats at the same or a lower cost, cheapest first."""
    priced = [
        (spent, one.mean, one) for one in settings if (spent := one.costs[cost]) is not None and one.mean is not None
    ]
    front: list[Setting] = []
    best: float | None = None
    for _, value, one in sorted(priced, key=lambda point: point[0]):
        # Of equal costs only the best counts; sorting is stable, and settings come best first.
        if best is None or better(value, best):
            front.append(one)
            best = value
    return front
