"""Input position against output position, as in arXiv 2303.18181, and any other two factors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inlay.study.report.drawing import LINE, SOFT, style
from inlay.study.report.words import number, show
from inlay.study.statistics.sample import has
from inlay.study.table import Level, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POSITIONS = (
    *("SA_in", "SA_out", "CA_in", "CA_out", "CA_c", "FFN_in", "FFN_out"),
    *("Trans_out", "Res_in", "Res_out"),
)
"""In the order of the data path (the publication's section 3)."""
_PAIR = re.compile(r"(\w+?)\s*(?:->|→|-|:|/| to )\s*(\w+)")


@dataclass(frozen=True)
class Positions:
    """Where a study says which positions its cells have."""

    input: str
    """The factor; the same as `output` where one factor names the pair."""
    output: str

    def of(self, row: Row) -> tuple[str, str] | None:
        """Return the pair of a row, None where it has none."""
        if self.input == self.output:
            found = _pair(row.factors.get(self.input))
            return found
        one, other = row.factors.get(self.input), row.factors.get(self.output)
        return (str(one), str(other)) if one in POSITIONS and other in POSITIONS else None


def _pair(level: Level) -> tuple[str, str] | None:
    match = _PAIR.fullmatch(level) if isinstance(level, str) else None
    return (match[1], match[2]) if match and match[1] in POSITIONS and match[2] in POSITIONS else None


def find_positions(rows: Sequence[Row]) -> Positions | None:
    """Return which factors are positions: two by input and output, or one of pairs such as `CA_out -> FFN_in`."""
    factors = list(dict.fromkeys(name for row in rows for name in row.factors))
    levels: Mapping[str, set[Level]] = {name: {row.factors.get(name) for row in rows} - {None} for name in factors}
    single = [name for name in factors if levels[name] and levels[name] <= set(POSITIONS)]
    inputs = [name for name in single if re.search(r"(^|[._])in(put)?($|_)", name)]
    outputs = [name for name in single if re.search(r"(^|[._])out(put)?($|_)", name)]
    if inputs and outputs:
        return Positions(inputs[0], outputs[0])
    for name in factors:
        if len(levels[name]) > 1 and all(_pair(level) for level in levels[name]):
            return Positions(name, name)
    return None


def by_position(rows: Sequence[Row], positions: Positions) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of each pair."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        pair = positions.of(row)
        if pair is not None:
            found.setdefault(pair, []).append(row)
    return found


def other_factors(rows: Sequence[Row], positions: Positions, most: int = 6) -> list[str]:
    """Return the factors beside the positions that vary over few levels: each has a row of small heatmaps."""
    names = dict.fromkeys(name for row in rows for name in row.factors)
    return [
        name
        for name in names
        if name not in (positions.input, positions.output) and 1 < len({row.factors.get(name) for row in rows}) <= most
    ]


def position_heatmap(
    rows: Sequence[Row], metric: str, positions: Positions, higher: bool | None, split: str | None = None
) -> Figure | None:
    """Draw the mean of a metric at each pair of positions; outputs are rows, inputs columns, as in the publication.

    Args:
        rows: of the study.
        metric: to average over all else.
        positions: of `find_positions`.
        higher: whether more is better; the best pair is framed.
        split: a factor to draw one heatmap a level of.
    """
    pairs = by_position(rows, positions)
    inputs = [name for name in POSITIONS if any(pair[0] == name for pair in pairs)]
    outputs = [name for name in POSITIONS if any(pair[1] == name for pair in pairs)]
    levels: list[Level] = list(dict.fromkeys(row.factors.get(split) for row in rows)) if split else [None]
    panels = [
        _values(by_position([row for row in rows if not split or row.factors.get(split) == level], positions), metric)
        for level in levels
    ]
    known = [value for panel in panels for value, _ in panel.values() if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    with style():
        from matplotlib.figure import Figure

        across = len(panels) if split is None else min(2, len(panels))
        down = -(-len(panels) // across)
        side = 0.62 if split is None else 0.5
        figure = Figure(
            figsize=(across * (1.0 + side * len(inputs)) + 0.3, down * (0.9 + 0.42 * len(outputs))),
            layout="constrained",
        )
        grid = figure.subplots(down, across, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_axis_off()
                continue
            title = "" if split is None else f"{split} {show(levels[place])}"
            _panel(axes, panels[place], inputs, outputs, (low, high), higher, title, 8.5 if split is None else 7)
        return figure


def _values(
    pairs: Mapping[tuple[str, str], Sequence[Row]], metric: str
) -> dict[tuple[str, str], tuple[float | None, str]]:
    found: dict[tuple[str, str], tuple[float | None, str]] = {}
    for pair, rows in pairs.items():
        values = [row.metrics[metric] for row in rows if has(row, metric)]
        failed = any(row.status == "failed" for row in rows)
        found[pair] = (float(np.mean(values)) if values else None, "failed" if failed else "")  # type: ignore[arg-type]
    return found


def _panel(axes, values, inputs, outputs, limits, higher, title, size) -> None:
    import matplotlib
    from matplotlib.patches import Rectangle

    colours = matplotlib.colormaps["viridis" if higher is not False else "viridis_r"]
    low, high = limits
    best = None
    for (one, other), (value, state) in values.items():
        x, y = inputs.index(one), outputs.index(other)
        if value is None:
            words = "failed" if state else "not run"
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="none", edgecolor=LINE, hatch="////", lw=0))
            axes.text(x, y, words, ha="center", va="center", fontsize=size - 1.5, color=SOFT)
            continue
        colour = colours(0.08 + 0.84 * ((value - low) / (high - low) if high > low else 0.5))
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="none"))
        light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.55
        text = number(value) + ("*" if state else "")
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color="#000000" if light else "#fffffe")
        if best is None or (value > best[0] if higher is not False else value < best[0]):
            best = (value, x, y)
    if best is not None:
        _, x, y = best
        axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, edgecolor="#d6402b", lw=2))
    axes.set_xlim(-0.5, len(inputs) - 0.5)
    axes.set_ylim(len(outputs) - 0.5, -0.5)
    axes.set_xticks(range(len(inputs)), inputs, rotation=35, ha="right", fontsize=size)
    axes.set_yticks(range(len(outputs)), outputs, fontsize=size)
    axes.tick_params(length=0)
    axes.set_xlabel("input position")
    axes.set_ylabel("output position")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title)
