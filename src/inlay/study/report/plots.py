"""Pictures of a study: effects with intervals, interactions, quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inlay.study.report.analysis import Analysis, Factor
from inlay.study.report.drawing import COLOURS, INK, SOFT, style
from inlay.study.report.settings_table import Setting, differ, pareto
from inlay.study.report.words import COSTS, SCALES, UNITS, show
from inlay.study.statistics.design import Term, matrix, name_of
from inlay.study.statistics.sample import TASK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = 14
"""Settings up to which every point has its name."""


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def effects(analysis: Analysis, factor: Factor) -> Figure:
    """Draw the means of a factor's levels with their intervals over all single runs."""
    count = len(factor.means)
    ordered = count > 2 and all(isinstance(mean.level, (int, float)) for mean in factor.means)
    order = list(range(count))
    if not ordered:
        sign = -1 if analysis.higher is False else 1
        order.sort(key=lambda code: sign * (factor.means[code].value or 0.0))
        order.sort(key=lambda code: factor.means[code].value is not None)
    with style():
        figure = _figure(6.2, max(1.7, 0.75 + 0.3 * count))
        axes = figure.subplots()
        scatter = np.random.default_rng(0)
        for place, code in enumerate(order):
            mean = factor.means[code]
            runs = factor.runs[code]
            shift = scatter.uniform(-0.16, 0.16, len(runs))
            axes.plot(runs, place + shift, ".", color=SOFT, alpha=0.45, markersize=4, markeredgewidth=0)
            if mean.value is None or mean.bounds is None:
                continue
            axes.plot([mean.bounds.low, mean.bounds.high], [place, place], color=COLOURS[0], linewidth=2)
            axes.plot(mean.value, place, "o", color=COLOURS[0], markersize=6)
        axes.set_yticks(range(count), [show(factor.means[code].level) for code in order])
        axes.set_ylim(-0.6, count - 0.4)
        axes.set_xlabel(analysis.metric + _arrow(analysis))
        axes.set_title(factor.name)
        axes.grid(axis="x")
        return figure


def _arrow(analysis: Analysis) -> str:
    return {True: " (more is better)", False: " (less is better)", None: ""}[analysis.higher]


def shown_interactions(analysis: Analysis, most: int = 4) -> list[Term]:
    """Return the interactions worth a picture: those of the model, the clearest first."""
    lines = [line for line in analysis.lines if len(line.term) == 2 and line.second.p is not None]
    lines.sort(key=lambda line: line.second.p or 0.0)
    return [line.term for line in lines][:most]


def interaction(analysis: Analysis, term: Term) -> Figure | None:
    """Draw the mean of each combination of two factors, one line a level of the shorter; None where none repeats."""
    sample = analysis.sample
    one, other = sorted(term, key=lambda name: (name == TASK, len(sample.levels[name])), reverse=True)
    if len(sample.levels[one]) > len(sample.levels[other]) and one != TASK:
        one, other = other, one
    # `one` has a line each, `other` the places along the axis.
    if len(sample.levels[one]) > len(COLOURS):
        return None
    with style():
        width = min(9.0, max(6.2, 1.6 + 0.55 * len(sample.levels[other])))
        figure = _figure(width, 3.2)
        axes = figure.subplots()
        for code, level in enumerate(sample.levels[one]):
            values = [
                sample.response[(sample.codes[one] == code) & (sample.codes[other] == place)]
                for place in range(len(sample.levels[other]))
            ]
            means = [float(runs.mean()) if len(runs) else np.nan for runs in values]
            shift = 0.16 * (code - (len(sample.levels[one]) - 1) / 2) / max(1, len(sample.levels[one]) - 1)
            places = np.arange(len(values)) + shift
            axes.plot(places, means, "-o", color=COLOURS[code], linewidth=1.4, markersize=4.5, label=show(level))
            for place, runs in zip(places, values, strict=True):
                axes.plot(np.full(len(runs), place), runs, ".", color=COLOURS[code], alpha=0.35, markersize=3.5)
        names = [show(level) for level in sample.levels[other]]
        tilted = len(names) * max(map(len, names)) > 9 * width
        axes.set_xticks(range(len(names)), names, rotation=35 if tilted else 0, ha="right" if tilted else "center")
        axes.set_ylabel(analysis.metric)
        axes.set_title(name_of(term))
        axes.grid(axis="y")
        figure.legend(loc="outside right upper", title=one)
        return figure


def quality_against_cost(analysis: Analysis, settings: Sequence[Setting], cost: str) -> Figure | None:
    """Draw each setting's mean against what it costs, and the Pareto front; None where costs hardly differ."""
    known = [one for one in settings if one.mean is not None and (one.costs.get(cost) or 0) > 0]
    if not differ(known, cost):
        return None
    scale = SCALES.get(cost, 1)
    front = pareto(known, cost, analysis.better)
    names = {id(one) for one in (known if len(known) <= LABELS else front[:LABELS])}
    with style():
        figure = _figure(6.2, 4.0)
        axes = figure.subplots()
        spent = [(one.costs[cost] or 0.0) / scale for one in known]
        if max(spent) > 15 * min(spent):
            axes.set_xscale("log")
        for one, place in zip(known, spent, strict=True):
            on_front = any(one is other for other in front)
            colour = COLOURS[0] if on_front else SOFT
            if one.half_width is not None:
                ends = [(one.mean or 0.0) - one.half_width, (one.mean or 0.0) + one.half_width]
                axes.plot([place, place], ends, color=colour, linewidth=1, alpha=0.6)
            axes.plot(place, one.mean or 0.0, "o", color=colour, markersize=6 if on_front else 4.5)
        axes.plot(
            [(one.costs[cost] or 0.0) / scale for one in front],
            [one.mean or 0.0 for one in front],
            ":",
            color=SOFT,
            linewidth=1.4,
        )
        axes.margins(x=0.14, y=0.1)
        limits = axes.get_ylim()
        low = min(one.mean or 0.0 for one in known)
        high = max(one.mean or 0.0 for one in known)
        spread = (high - low) or 1.0
        axes.set_ylim(max(limits[0], low - 1.2 * spread), min(limits[1], high + 1.2 * spread))
        axes.grid()
        unit = f", {UNITS[cost]}" if cost in UNITS else ""
        axes.set_xlabel(COSTS[cost] + unit)
        axes.set_ylabel(analysis.metric + _arrow(analysis))
        _name_points(figure, axes, [(place, one) for one, place in zip(known, spent, strict=True) if id(one) in names])
        return figure


def _name_points(figure: Figure, axes: Any, points: Sequence[tuple[float, Setting]]) -> None:
    """Write names beside points where they do not cover each other; best points are named first."""
    figure.draw_without_rendering()
    taken: list[Any] = []
    for place, one in points:
        for offset, side, height in (
            ((6, 3), "left", "bottom"),
            ((6, -3), "left", "top"),
            ((-6, 3), "right", "bottom"),
        ):
            label = axes.annotate(
                one.name,
                (place, one.mean),
                xytext=offset,
                textcoords="offset points",
                ha=side,
                va=height,
                fontsize=8,
                color=INK,
            )
            box = label.get_window_extent()
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()


def residuals(analysis: Analysis) -> Figure | None:
    """Draw the residuals of the joint model over its fitted values, and against the quantiles of a bell shape."""
    from scipy import stats

    if analysis.table is None or not analysis.deviation:
        return None
    error = analysis.table.error
    scaled = np.sort(error.residuals) / analysis.deviation
    expected = stats.norm.ppf((np.arange(len(scaled)) + 0.5) / len(scaled))
    assert matrix(analysis.sample, analysis.table.terms).shape[0] == len(scaled)
    with style():
        figure = _figure(6.2, 2.7)
        left, right = figure.subplots(1, 2)
        left.axhline(0, color=SOFT, linewidth=0.8)
        left.plot(error.fitted, error.residuals, ".", color=COLOURS[0], alpha=0.6)
        left.set_xlabel("fitted")
        left.set_ylabel("residual")
        left.set_title("equal scatter?")
        right.plot([expected[0], expected[-1]], [expected[0], expected[-1]], color=SOFT, linewidth=0.8)
        right.plot(expected, scaled, ".", color=COLOURS[0], alpha=0.6)
        right.set_xlabel("quantile of a bell shape")
        right.set_ylabel("residual, in deviations")
        right.set_title("a bell shape?")
        return figure
