"""A comparison as one HTML file that needs nothing else: no network, no script to be read, no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay import __version__
from inlay.errors import ConfigError
from inlay.files import write_text
from inlay.run.compare.comparison import Comparison
from inlay.run.compare.figures import HELD_OUT
from inlay.run.compare.plots import COLOURS, Axis, Series, line_chart, scatter
from inlay.run.compare.quality import curve, smoothed, thinned
from inlay.run.compare.samples import Samples
from inlay.run.human import human_bytes, human_count, human_seconds
from inlay.run.page import render_page

if TYPE_CHECKING:
    import numpy as np

GENERATOR = f"inlay {__version__} compare"
MARK = '<meta name="generator" content="inlay '
"""By which a page is known as one that may be replaced."""
SMALL = 128
"""Side in pixels up to which pictures are kept bit for bit and shown enlarged."""
LARGEST = 384
"""Side in pixels to which larger pictures are reduced."""
UNKNOWN = "–"
COSTS = {
    "trainable_parameters": ("trained parameters", human_count),
    "result_bytes": ("file", human_bytes),
    "peak_bytes": ("peak memory", human_bytes),
    "seconds_per_step": ("a step", human_seconds),
    "training_seconds": ("training", human_seconds),
    "seconds_to_level": ("time to quality", human_seconds),
}
"""Columns of the table of costs: title and how a value is written."""


def write_page(comparison: Comparison, samples: Samples, path: Path) -> Path:
    """Write the page atomically.

    Raises:
        ConfigError: there is another file at ``path``.
    """
    refuse_other(path)
    return write_text(path, render(comparison, samples))


def refuse_other(path: Path) -> None:
    """Refuse to replace what is no earlier page.

    Raises:
        ConfigError: names the file.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory; give --into a file")
    with path.open("rb") as file:
        if MARK.encode() not in file.read(4096):
            raise ConfigError(f"{path}: is there already and no page of `inlay compare`; give another --into")


def render(comparison: Comparison, samples: Samples) -> str:
    """Return the page."""
    place = Path(__file__).parent
    names = [run.name for run in comparison.runs]
    pictures = {
        "says": samples.says,
        "rows": [_sample_row(prompt, samples) for prompt in samples.prompts],
        "notes": [shown.note for shown in samples.runs],
        "training": [_picture(pixels) for pixels in samples.training],
        "has_base": bool(samples.before.pictures),
    }
    told = [_column(comparison, number) for number in range(len(comparison.columns))]
    return render_page(
        place,
        generator=GENERATOR,
        made=f"{datetime.now(UTC):%d %B %Y}".lstrip("0"),
        script=(place / "page.js").read_text(encoding="utf-8"),
        comparison=comparison,
        names=names,
        colours=[_colour(index) for index in range(len(names))],
        subtitle=_subtitle(comparison),
        pictures=pictures,
        columns=[column for column in told if not column["part"]],
        parts=[column for column in told if column["part"]],
        costs=_cost_columns(comparison),
        symptoms=_symptoms(comparison),
        curves=_curves(comparison),
        plots=_plots(comparison),
        seconds=human_seconds,
        unknown=UNKNOWN,
    )


def data_uri(pixels: np.ndarray) -> str:
    """Return a picture as a WebP inside a URI: small ones bit for bit, large ones reduced."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    small = max(picture.size) <= SMALL
    if not small:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=small, quality=86, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _picture(pixels: np.ndarray) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    return {"uri": data_uri(pixels), "small": max(height, width) <= SMALL, "width": width, "height": height}


def _sample_row(prompt: str, samples: Samples) -> dict[str, Any]:
    """Return one prompt's pictures: a column for the base and each run, a row a draw of noise."""
    shown = ([samples.before] if samples.before.pictures else []) + list(samples.runs)
    columns = [[_picture(pixels) for pixels in one.pictures.get(prompt, [])] for one in shown]
    count = max((len(column) for column in columns), default=0)
    return {"prompt": prompt, "columns": columns, "draws": range(count)}


def _colour(index: int) -> str:
    return f"c{index % COLOURS}"


def _subtitle(comparison: Comparison) -> str:
    def told(*keys: str) -> str:
        values = list(dict.fromkeys(str(run.setting(*keys)) for run in comparison.runs))
        return values[0] if len(values) == 1 else f"{len(values)} different"

    return f"base {told('base', 'model')} · pictures {told('data', 'source')} · seed {told('seed')}"


def number(value: float) -> str:
    """Return a value with four digits that count."""
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"


def _column(comparison: Comparison, which: int) -> dict[str, Any]:
    column = comparison.columns[which]
    sizes = {figure.n for figure in column.figures if figure.value is not None}
    return {
        "part": column.name.startswith("accuracy_"),  # one an attribute; "accuracy" has them together
        "remarks": list(dict.fromkeys(figure.remark for figure in column.figures if figure.remark)),
        "title": column.title,
        "better": {"higher": "higher is better", "lower": "lower is better", None: ""}[column.better],
        "arrow": {"higher": "↑", "lower": "↓", None: ""}[column.better],
        "comparable": column.comparable,
        "note": column.note,
        "n": sizes.pop() if len(sizes) == 1 else "",
        "cells": [
            {
                "value": None if figure.value is None else number(figure.value),
                "sort": figure.value,
                "interval": f"{figure.interval[0]:.3g} to {figure.interval[1]:.3g}" if figure.interval else "",
                "n": figure.n,
                "reason": figure.reason,
                "best": index in column.best,
            }
            for index, figure in enumerate(column.figures)
        ],
    }


def _symptoms(comparison: Comparison) -> list[dict[str, Any]]:
    """Return what was asked about going wrong, a row a question, and each run's answer."""
    answers = [
        {answer["name"]: answer for answer in run.at("symptoms") or [] if isinstance(answer, dict) and "name" in answer}
        for run in comparison.runs
    ]
    names = list(dict.fromkeys(name for own in answers for name in own))
    return [{"name": name, "cells": [own.get(name) for own in answers]} for name in names]


def _cost_columns(comparison: Comparison) -> list[dict[str, Any]]:
    rows = [comparison.costs(index) for index in range(len(comparison.runs))]
    found = []
    for key, (title, write) in COSTS.items():
        values = [row[key] for row in rows]
        top = max((value for value in values if value), default=0)
        cells = [
            {
                "text": UNKNOWN if value is None else write(value),
                "sort": value,
                "share": (value or 0) / top if top else 0,
                "extra": "",
            }
            for value in values
        ]
        if key == "trainable_parameters":
            for cell, row in zip(cells, rows, strict=True):
                if cell["sort"] and row["denoiser_parameters"]:
                    cell["extra"] = f"{100 * cell['sort'] / row['denoiser_parameters']:.3g} %"
        found.append({"key": key, "title": title, "cells": cells})
    return found


def _curves(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the charts of training: each over steps and over seconds."""
    longest = max((len(run.trace) for run in comparison.runs), default=0)
    window = max(1, longest // 10)
    charts = []
    wanted = [
        ("loss", f"Training loss, mean of {window} steps", "Of the pictures that are learned: low does not mean good."),
        (HELD_OUT, "Held-out loss", "Of pictures that training never sees, with fixed noise and timesteps."),
    ]
    quality = comparison.quality
    if quality is not None and quality.name != HELD_OUT:
        wanted.append((quality.name, quality.title, "Measured while training, always with the same prompts and noise."))
    for key, title, note in wanted:
        points = [curve(run, key) for run in comparison.runs]
        if key == "loss":
            points = [smoothed(each, window) for each in points]
        if not any(points):
            continue
        points = [thinned(each) for each in points]
        over = {}
        for unit, at in (("steps", 0), ("seconds", 1)):
            series = [
                Series(index, run.name, [(float(point[at]), point[2]) for point in each])
                for index, (run, each) in enumerate(zip(comparison.runs, points, strict=True))
                if each
            ]
            over[unit] = _line_chart(series, f"{title} over {unit}", unit, dots=key != "loss")
        charts.append({"title": title, "note": note, **over})
    return charts


def _line_chart(series: Sequence[Series], title: str, unit: str, dots: bool) -> str:
    label = {"steps": "optimizer step", "seconds": "seconds of training"}[unit]
    x = Axis.over(label, [point[0] for each in series for point in each.points], zero=True)
    y = Axis.over(
        "loss" if "loss" in title else title.partition(" over ")[0],
        [point[1] for each in series for point in each.points],
    )
    return line_chart(series, x, y, title, dots)


def _plots(comparison: Comparison) -> list[dict[str, Any]]:
    """Return quality against parameters and against seconds."""
    quality = comparison.quality
    if quality is None:
        return []
    found = []
    for cost, label in (("trainable_parameters", "trained parameters"), ("training_seconds", "seconds of training")):
        points, front = comparison.against(cost)
        if len(points) < 2:
            continue
        spent = [point[0] for point in points.values()]
        heights = [point[1] for point in points.values()]
        series = []
        for index, point in points.items():
            run, interval = comparison.runs[index], quality.figures[index].interval
            heights += interval or ()
            series.append(Series(index, run.name, [point], interval, run.done))
        x = Axis.over(label, spent, log=max(spent) > 8 * min(spent))
        sense = {"higher": "higher is better", "lower": "lower is better", None: ""}[quality.better]
        y = Axis.over(f"{quality.title} ({sense})", heights)
        title = f"{quality.title} against {label}"
        found.append(
            {
                "title": f"Against {label}",
                "svg": scatter(series, [points[index] for index in front], x, y, title),
                "front": [comparison.runs[index].name for index in front],
            }
        )
    return found
