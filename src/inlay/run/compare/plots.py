"""Charts as SVG inside a page: their colours are the page's, so that they follow its light or dark look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44
"""Margins; the axes' words stand in them."""
LETTER = 6.4
"""Mean width of a letter of labels."""
COLOURS = 8
"""Colours of the page's palette; further runs get another stroke."""


@dataclass(frozen=True)
class Axis:
    """From values to places along one side of a chart."""

    label: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, label: str, values: Sequence[float], log: bool = False, zero: bool = False) -> Axis:
        """Return an axis that shows all values with some room around them.

        Args:
            label: in words, with the unit.
            values: at least one, positive where the axis is logarithmic.
            log: whether places are those of logarithms.
            zero: begin at 0.
        """
        low, high = min(values), max(values)
        if log:
            room = max((high / low) ** 0.08, 1.15)
            return cls(label, low / room, high * room, True)
        if zero:
            return cls(label, 0.0, high * 1.04 or 1.0)
        room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        return cls(label, low - room, high + room)

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return four to eight round values within the axis."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1,), (1, 3), (1, 2, 5)):
                found = [f * 10.0**p for p in powers for f in factors if self.low <= f * 10.0**p <= self.high]
                if len(found) >= 3:
                    break
            return found
        rough = (self.high - self.low) / 6
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True)
class Series:
    """One run's line or point."""

    index: int
    """Of the run: decides colour and stroke."""
    name: str
    points: Sequence[tuple[float, float]]
    interval: tuple[float, float] | None = None
    """Of the height of a single point."""
    ended: bool = True
    """Points of runs that did not finish are hollow."""


def tick_text(value: float) -> str:
    """Return a tick in few letters: 12000 is "12k"."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:.6g}"


def line_chart(series: Sequence[Series], x: Axis, y: Axis, title: str, dots: bool = False) -> str:
    """Return an SVG with a line a run.

    Args:
        series: with their points from left to right.
        x: axis from left to right.
        y: axis from bottom to top; lines above it are cut off.
        title: what is shown, for those who do not see it.
        dots: mark every point.
    """
    parts = [_head(title, [each.name for each in series]), *_axes(x, y)]
    parts.append(f'<svg x="{LEFT}" y="{TOP}" width="{_wide()}" height="{_high()}">')
    for each in series:
        places = [(x.place(a) * _wide(), (1 - y.place(b)) * _high()) for a, b in each.points]
        line = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
        parts.append(f'<g class="run{_stroke(each.index)}"><title>{escape(each.name)}</title>')
        parts.append(f'<polyline class="line" points="{line}"/>')
        if dots:
            parts += [
                f'<circle class="dot" cx="{across:.1f}" cy="{down:.1f}" r="2.6">'
                f"<title>{escape(each.name)}: {value:.4g} at {tick_text(at)}</title></circle>"
                for (across, down), (at, value) in zip(places, each.points, strict=True)
            ]
        parts.append("</g>")
    return "".join([*parts, "</svg></svg>"])


def scatter(series: Sequence[Series], front: Sequence[tuple[float, float]], x: Axis, y: Axis, title: str) -> str:
    """Return an SVG with a named point a run, and the Pareto front as steps through the points on it.

    Args:
        series: each of one point, with the interval of its height where there is one.
        front: the points that no other one beats, cheapest first.
        x: axis of the cost.
        y: axis of the quality.
        title: what is shown.
    """
    parts = [_head(title, [each.name for each in series]), *_axes(x, y)]

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + x.place(point[0]) * _wide(), TOP + (1 - y.place(point[1])) * _high()

    if front:
        places = [at(point) for point in front]
        steps = [f"M{places[0][0]:.1f},{places[0][1]:.1f}"]
        steps += [f"H{across:.1f}V{down:.1f}" for across, down in places[1:]]
        parts.append(f'<path class="front" d="{"".join(steps)}H{WIDTH - RIGHT}"><title>Pareto front</title></path>')
    taken: list[tuple[float, float, float, float]] = []
    for each in series:
        across, down = at(each.points[0])
        taken.append((across - 7, down - 7, across + 7, down + 7))
    for each in series:
        across, down = at(each.points[0])
        value = f"{each.points[0][1]:.4g}"
        if each.interval:
            value += f", interval {each.interval[0]:.4g} to {each.interval[1]:.4g}"
        told = f"{each.name}: {value} at {tick_text(each.points[0][0])}"
        parts.append(f'<g class="run{_stroke(each.index)}"><title>{escape(told)}</title>')
        kind = "point" if each.ended else "point hollow"
        if each.interval:
            low, high = (at((each.points[0][0], end))[1] for end in each.interval)
            parts.append(f'<path class="whisker" d="M{across:.1f},{low:.1f}V{high:.1f}"/>')
        parts.append(f'<circle class="{kind}" cx="{across:.1f}" cy="{down:.1f}" r="5"/>')
        left, top, anchor = _label_place(across, down, len(each.name) * LETTER, taken)
        parts.append(
            f'<text class="name" x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}">{escape(each.name)}</text>'
        )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _label_place(
    across: float, down: float, width: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, str]:
    """Return x, y and the anchor of a label beside a point where it covers no other, and take that place."""
    best, least = (across + 10, down + 4, "start"), math.inf
    for left, top, anchor in (
        (across + 10, down + 4, "start"),
        (across - 10, down + 4, "end"),
        (across, down - 11, "middle"),
        (across, down + 19, "middle"),
        (across + 8, down - 9, "start"),
        (across + 8, down + 17, "start"),
        (across - 8, down - 9, "end"),
        (across - 8, down + 17, "end"),
        (across + 8, down - 23, "start"),
        (across + 8, down + 31, "start"),
        (across - 8, down - 23, "end"),
        (across - 8, down + 31, "end"),
    ):
        first = left - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = (first, top - 10, first + width, top + 3)
        covered = sum(_overlap(box, other) for other in taken)
        # Words that leave the picture are worse than words that touch.
        outside = max(0, LEFT + 2 - box[0]) + max(0, box[2] - WIDTH + 2) + max(0, TOP - 10 - box[1])
        outside += max(0, box[3] - (HEIGHT - BOTTOM))
        if covered + 50 * outside < least - 1e-9:
            best, least, chosen = (left, top, anchor), covered + 50 * outside, box
    taken.append(chosen)
    return best


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _head(title: str, names: Sequence[str]) -> str:
    label = escape(f"{title}: {', '.join(names)}", quote=True)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'


def _axes(x: Axis, y: Axis) -> list[str]:
    parts = ['<g class="axes">']
    bottom = HEIGHT - BOTTOM
    for value in y.ticks():
        down = TOP + (1 - y.place(value)) * _high()
        parts.append(f'<path class="rule" d="M{LEFT},{down:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{tick_text(value)}</text>')
    for value in x.ticks():
        across = LEFT + x.place(value) * _wide()
        parts.append(f'<path class="tick" d="M{across:.1f},{bottom}v4"/>')
        parts.append(f'<text x="{across:.1f}" y="{bottom + 17}" text-anchor="middle">{tick_text(value)}</text>')
    parts.append(f'<path class="base" d="M{LEFT},{bottom}H{WIDTH - RIGHT}"/>')
    middle = LEFT + _wide() / 2
    parts.append(f'<text class="label" x="{middle:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>')
    down = TOP + _high() / 2
    parts.append(
        f'<text class="label" transform="translate(13,{down:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return [*parts, "</g>"]


def _wide() -> float:
    return WIDTH - LEFT - RIGHT


def _high() -> float:
    return HEIGHT - TOP - BOTTOM


def _stroke(index: int) -> str:
    """Return the classes of a run's colour and stroke."""
    turn = index // COLOURS % 3
    return f" c{index % COLOURS}" + (f" s{turn}" if turn else "")
