"""Metrics of runs with their intervals and sample sizes, and which of them may be held against each other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from inlay.metrics.measure import Measure, difference
from inlay.run.compare.gather import Run
from inlay.run.evaluation.figures import restored

Side = Literal["higher", "lower"]
TRAINING_LOSS = "smoothed_loss"
HELD_OUT = "validation_loss"
TITLES = {TRAINING_LOSS: "training loss, smoothed", HELD_OUT: "held-out loss"}
NEVER_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """One metric of one run."""

    value: float | None
    interval: tuple[float, float] | None
    n: str
    """Sample size in words; empty where none is recorded."""
    reason: str
    """Why the value or the interval is missing; empty where neither is."""
    kind: str
    """Figures of unequal kinds, that is sample size, extractor or references, are not held against each other."""
    remark: str = ""
    """What the figure cannot bear, as its record says."""
    measure: Measure | None = field(default=None, repr=False)
    """What the difference from another figure is found with."""


@dataclass(frozen=True)
class Column:
    """One metric of all runs."""

    name: str
    title: str
    better: Side | None
    """Which values are better; None where that is not known, or says nothing about quality."""
    figures: tuple[Figure, ...]
    comparable: bool
    note: str
    """Why not; empty where they are."""
    best: frozenset[int]
    """The run of the best value, and those whose difference from it may be chance: its interval holds 0. Empty where
    figures are not comparable or a difference has no interval."""


def columns(runs: Sequence[Run]) -> list[Column]:
    """Return the metrics that any of the runs has, or says why it lacks them."""
    named = [
        [*(run.at("metrics") or {}), *(run.at("missing") or {}), *(run.at("metric_details") or {})] for run in runs
    ]
    asked = {answer.get("figure") for run in runs for answer in run.at("symptoms") or []}  # told by their sentences
    names = [name for name in dict.fromkeys(name for own in named for name in own) if name not in asked]
    names.sort(key=lambda name: (name == TRAINING_LOSS, name == HELD_OUT))  # what is known of all runs comes last
    return [_column(name, runs) for name in names]


def direction(name: str, detail: dict[str, Any]) -> Side | None:
    """Return which values of a metric are better, as its record says."""
    if name == TRAINING_LOSS:  # low on pictures that were learned by heart, too
        return None
    stated = detail.get("better")
    return stated if stated in ("higher", "lower") else "lower" if name == HELD_OUT else None


def _column(name: str, runs: Sequence[Run]) -> Column:
    details = [detail if isinstance(detail := run.at("metric_details", name), dict) else {} for run in runs]
    figures = tuple(_figure(name, run, detail) for run, detail in zip(runs, details, strict=True))
    better: Side | None = next((found for detail in details if (found := direction(name, detail))), None)
    present = [figure for figure in figures if figure.value is not None]
    kinds = {figure.kind for figure in present}
    note = ""
    if len(kinds) > 1:
        apart = _apart([json.loads(kind) for kind in kinds])
        note = f"not comparable: the runs differ in {', '.join(apart)}"
    best: frozenset[int] = frozenset()
    if not note and better and len(present) > 1:
        best = _best(figures, better)
    return Column(name, _title(name, details), better, figures, not note, note, best)


def _title(name: str, details: Sequence[dict[str, Any]]) -> str:
    label = next((detail["label"] for detail in details if detail.get("label")), None)
    return TITLES.get(name) or label or name.replace("_", " ")


def _figure(name: str, run: Run, detail: dict[str, Any]) -> Figure:
    value = run.at("metrics", name)
    value = float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
    reasons = [run.at("missing", name), detail.get("note"), "" if run.done else run.status]
    if value is None:
        reason = next((str(reason) for reason in reasons if reason), NEVER_MEASURED)
        return Figure(None, None, "", reason, "")
    if name == HELD_OUT:
        detail = {"n": run.at("data", "held_out"), **detail, **_measured_on(run)}
    if name == TRAINING_LOSS:
        detail = {**_measured_on(run), "objective": run.setting("objective"), "prior": run.setting("data", "prior")}
    interval = read_interval(detail)
    reason = "" if interval else "no interval"
    told = {key: detail[key] for key in KIND if key in detail}
    remark = str(detail.get("note") or "")
    measure = None
    if detail.get("jackknife"):
        with suppress(KeyError, TypeError):  # the record of another version, whose differences cannot be told
            measure = restored(detail)
    return Figure(value, interval, sample_size(detail), reason, json.dumps(told, sort_keys=True), remark, measure)


KIND = {
    "label": "the metric",
    "n": "the number of pictures",
    "references": "the number of references",
    "extractor": "the extractor",
    "fingerprint": "the extractor's weights or resizing",
    "reference": "the references",
    "pairing": "prompts or noise",
    "data": "training pictures",
    "held out": "held-out pictures",
    "resolution": "resolution",
    "seed": "seed",
    "base": "base",
    "objective": "objective",
    "prior": "class pictures",
}
"""What must be equal for figures to be held against each other, and what to call it."""


def _measured_on(run: Run) -> dict[str, Any]:
    """Return all that decides on which pictures, noise and timesteps a loss is measured."""
    return {
        "data": run.at("data", "hash"),
        "held out": run.at("data", "held_out"),
        "resolution": run.at("data", "resolution"),
        "seed": run.setting("seed"),
        "base": run.at("base", "hash"),
    }


def read_interval(detail: dict[str, Any]) -> tuple[float, float] | None:
    """Return the interval in a metric's details."""
    ends = detail.get("interval")
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        return None
    if not all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends):
        return None
    return float(ends[0]), float(ends[1])


def sample_size(detail: dict[str, Any]) -> str:
    """Return the number of pictures in words: "40", or "40 against 5" where there are references."""
    numbers = [detail.get("n"), detail.get("references") or None]
    return " against ".join(f"{number:,}" for number in numbers if isinstance(number, int))


def _apart(kinds: Sequence[dict[str, Any]]) -> list[str]:
    """Return in which respects kinds differ."""
    return [word for key, word in KIND.items() if any(kind.get(key) != kinds[0].get(key) for kind in kinds)]


def _best(figures: Sequence[Figure], better: Side) -> frozenset[int]:
    sign = 1 if better == "higher" else -1
    known = {index: figure for index, figure in enumerate(figures) if figure.value is not None}
    top = max(known, key=lambda index: sign * (known[index].value or 0.0))
    best = known[top].measure
    alike = {top}
    for index, figure in known.items():
        if index == top:
            continue
        if best is None or figure.measure is None:
            return frozenset()
        found = difference(best, figure.measure)
        if found.interval is None and found.value:
            return frozenset()
        if not found.clear:
            alike.add(index)
    return frozenset(alike)
