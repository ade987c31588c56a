"""Which setting to take within a budget, by the records of a study: the best, the next, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from inlay.errors import ConfigError
from inlay.metrics.intervals import student_quantile
from inlay.study.report.words import COSTS, cost, listed, number, plural, verb

BUDGETED = {"memory": "peak_bytes", "seconds": "training_seconds", "file_size": "result_bytes"}
"""Budgets, and the costs that they limit."""


@dataclass(frozen=True)
class Candidate:
    """A setting with its results on one task."""

    name: str
    quality: float
    """Mean of the metric over its runs."""
    runs: int
    pictures: float | None
    """Half width of the 95 % interval that comes from the few pictures drawn; None where it is not known."""
    costs: Mapping[str, float | None]
    settings: Mapping[str, Any]
    """Sections of a run file."""
    economies: tuple[str, ...] = ()
    """What the settings do to need less memory, in words."""
    scatter: float | None = None
    """Standard deviation of the metric from one run of it to the next; None where no run of any was repeated."""
    freedom: float = math.inf
    """Degrees of freedom of `scatter`."""


@dataclass(frozen=True)
class Records:
    """What a study says of one task."""

    covers: str
    """What was measured, in a sentence."""
    task: str
    metric: str
    higher: bool
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Estimate:
    """What to expect of a setting."""

    candidate: Candidate
    expected: float
    low: float | None
    """Of the 95 % interval; None where nothing tells how much runs differ."""
    high: float | None
    error: float | None
    """Standard error that chance from run to run leaves in `expected`."""


@dataclass(frozen=True)
class Advice:
    """A choice with its reasons."""

    records: Records
    best: Estimate
    runner_up: Estimate | None
    tied: tuple[str, ...]
    """Settings that cannot be told from the best and are not known to be beyond the budget."""
    lightest: Estimate | None
    """Of these, one within the budget whose file is small."""
    excluded: tuple[tuple[str, str], ...]
    """Settings beyond the budget, and by what."""


def estimates(records: Records) -> list[Estimate]:
    """Return what to expect of each setting, best first.

    The best of many single runs is partly lucky, so with four settings or more every mean is drawn towards the mean of
    all by the part of their differences that is chance (Morris, J. American Statistical Association 78, 1983, 47-55,
    equations 1.14 to 1.17; with variances that differ, each by its own against their mean).
    """
    means = np.array([one.quality for one in records.candidates])
    chances = np.array([math.nan if one.scatter is None else one.scatter**2 / one.runs for one in records.candidates])
    count, middle = len(means), float(means.mean())
    true = max(0.0, float(means.var(ddof=1) - chances.mean())) if count > 1 else 0.0  # variance between settings
    found = []
    for one, chance in zip(records.candidates, chances.tolist(), strict=True):
        if math.isnan(chance):
            found.append(Estimate(one, one.quality, None, None, None))
            continue
        shrunk, doubt = 0.0, 0.0
        if count > 3 and chance > 0:
            shrunk = (count - 3) / (count - 1) * chance / (chance + true)
            doubt = 2 * (shrunk * (one.quality - middle)) ** 2 / (count - 3)
            doubt *= float(chances.mean() + true) / (chance + true)
        expected = one.quality - shrunk * (one.quality - middle)
        error = math.sqrt(chance * (1 - shrunk * (count - 1) / count) + doubt)
        half = math.hypot(student_quantile(0.975, one.freedom) * error, one.pictures or 0.0)
        found.append(Estimate(one, expected, expected - half, expected + half, error))
    sign = -1 if records.higher else 1
    return sorted(found, key=lambda estimate: (sign * estimate.expected, _weight(estimate), estimate.candidate.name))


def _weight(estimate: Estimate) -> float:
    size = estimate.candidate.costs.get("result_bytes")
    return math.inf if size is None else size


def choose(
    records: Records, budget: Mapping[str, float], planned: Callable[[Candidate], Candidate | None] | None = None
) -> Advice:
    """Return the setting to take.

    Args:
        records: of one task.
        budget: limits by the names of `BUDGETED`, in bytes and seconds; a setting whose cost is not known is beyond.
        planned: returns a setting with its costs where those of the records do not hold, None if it cannot be used.
            Asked of as few settings as it takes to find the best two and one with a small file.

    Raises:
        ConfigError: no setting is within the budget; says which comes nearest.
    """
    seen: list[Candidate] = []
    excluded: list[tuple[str, str]] = []

    def look(estimate: Estimate) -> Estimate | None:
        candidate = estimate.candidate if planned is None else planned(estimate.candidate)
        if candidate is None:
            return None
        seen.append(candidate)
        reasons = [
            f"{COSTS[BUDGETED[name]]} {cost(BUDGETED[name], spent)}"
            for name, limit in budget.items()
            if (spent := candidate.costs.get(BUDGETED[name])) is None or spent > limit
        ]
        if reasons:
            excluded.append((candidate.name, listed(reasons)))
            return None
        return replace(estimate, candidate=candidate)

    unseen = iter(estimates(records))
    within = list(islice(filter(None, map(look, unseen)), 2 if planned is not None else None))
    if not seen:
        raise ConfigError("none of the methods can be used on this base; `inlay plan` says why")
    if not within:
        least = [_least(seen, name) for name in budget]
        raise ConfigError(f"no setting is within this budget; {listed(least)}")
    best, *others = within
    others = [other for other in others if alike(best, other)]
    left = sorted((other for other in unseen if alike(best, other)), key=_weight)
    light = [*others, *islice(filter(None, map(look, left)), 1)]
    beyond = {name for name, _ in excluded}
    return Advice(
        records=records,
        best=best,
        runner_up=within[1] if len(within) > 1 else None,
        tied=tuple(name for one in (*others, *left) if (name := one.candidate.name) not in beyond),
        lightest=min(light, key=_weight, default=None),
        excluded=tuple(excluded),
    )


def _least(candidates: Sequence[Candidate], name: str) -> str:
    key = BUDGETED[name]
    known = [(spent, one.name) for one in candidates if (spent := one.costs.get(key)) is not None]
    if not known:
        return f"{COSTS[key]} is not known of any"
    spent, who = min(known)
    return f"{who} has the least {COSTS[key]}, {cost(key, spent)}"


def alike(one: Estimate, other: Estimate) -> bool:
    """Return whether two settings cannot be told apart: chance from run to run alone makes them differ so much.

    Pictures are drawn from the same noise for all, so what they add to single intervals mostly cancels here.
    """
    if one.error is None or other.error is None:
        return True
    quantile = student_quantile(0.975, min(one.candidate.freedom, other.candidate.freedom))
    return abs(one.expected - other.expected) <= quantile * math.hypot(one.error, other.error)


def explain(advice: Advice) -> list[str]:
    """Return the advice in sentences, each a line."""
    records, best = advice.records, advice.best
    lines = [f"Take {best.candidate.name}: {expectation(records, best)}; {spending(best)}."]
    if best.candidate.economies:
        lines.append(f"To fit into the memory, it trains with {listed(best.candidate.economies)}.")
    if advice.runner_up is not None:
        second = advice.runner_up
        lines.append(f"Runner-up: {second.candidate.name}, {expectation(records, second)}; {spending(second)}.")
        lines.append(_why(advice, second))
    if advice.tied:
        line = f"{plural(len(advice.tied), 'setting')} cannot be told from the first by these records"
        light = advice.lightest
        if light is not None and _weight(light) < _weight(best):
            line += f"; of these {light.candidate.name} has a small file ({cost('result_bytes', _weight(light))})"
        lines.append(f"{line}.")
    if advice.excluded:
        shown = [f"{name} ({reason})" for name, reason in advice.excluded]
        count = len(shown)
        lines.append(f"{plural(count, 'setting')} {verb(count)} beyond the budget: {listed(shown, 4)}.")
    lines.append(records.covers)
    return lines


def expectation(records: Records, estimate: Estimate) -> str:
    """Return the expected quality with its interval."""
    if estimate.low is None or estimate.high is None:
        return f"measured {records.metric} {number(estimate.expected)}, without an interval: nothing was repeated"
    low, high = number(estimate.low), number(estimate.high)
    return f"expected {records.metric} {number(estimate.expected)}, 95 % interval {low} to {high}"


def spending(estimate: Estimate) -> str:
    """Return the costs in words."""
    known = [
        f"{COSTS[name]} {cost(name, value)}"
        for name in BUDGETED.values()
        if (value := estimate.candidate.costs.get(name)) is not None
    ]
    return listed(known) if known else "costs unknown"


def _why(advice: Advice, second: Estimate) -> str:
    best = advice.best
    gap = abs(best.expected - second.expected)
    if alike(best, second):
        reason = f"The difference of {number(gap)} is within chance"
        cheaper = [
            COSTS[name]
            for name in BUDGETED.values()
            if (one := best.candidate.costs.get(name)) is not None
            and (other := second.candidate.costs.get(name)) is not None
            and other < 0.95 * one
        ]
        return f"{reason}: the runner-up is as good a choice" + (f", with less {listed(cheaper)}." if cheaper else ".")
    return f"The first is ahead by {number(gap)}, more than chance from run to run explains."
