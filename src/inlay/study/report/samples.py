"""Pictures that cells have drawn, small enough for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inlay.study.report.settings_table import Setting
from inlay.study.report.words import number
from inlay.study.statistics.sample import has
from inlay.study.table import Row

SAMPLES = "samples.png"
WIDTH = 460
"""Pixels to which the pictures of a cell are reduced."""
MOST = 24
"""Pictures in all; of more settings the best is shown, and others evenly down to the worst."""


@dataclass(frozen=True)
class Shown:
    """The pictures of one cell."""

    title: str
    says: str
    source: str
    """A data address."""


def samples(directory: Path, rows: Sequence[Row], settings: Sequence[Setting], metric: str) -> list[Shown]:
    """Return pictures of each setting on each task, tasks apart, settings in their order, of the first seed.

    Args:
        directory: the study directory.
        rows: of the study.
        settings: best first.
        metric: by which they are ordered.
    """
    by_id = {row.cell: row for row in rows}
    tasks = list(dict.fromkeys(row.task for row in rows))
    each = max(2, MOST // len(tasks))
    found = []
    for task in tasks:
        drawn = []
        for setting in settings:
            mine = [by_id[cell] for cell in setting.ids if by_id[cell].task == task]
            mine.sort(key=lambda row: (row.seed or 0, row.cell))
            pictures = ((row, _small(directory / "cells" / row.cell / SAMPLES)) for row in mine)
            first = next(((row, source) for row, source in pictures if source), None)
            if first is not None:
                drawn.append((setting, *first))
        if len(drawn) > each:
            drawn = [drawn[round(place * (len(drawn) - 1) / (each - 1))] for place in range(each)]
        for setting, row, source in drawn:
            says = [f"{metric} {number(row.metrics[metric])}" if has(row, metric) else row.reason or row.status]
            says += [f"task {row.task}"] if row.task is not None else []
            says += [f"seed {row.seed}"] if row.seed is not None else []
            found.append(Shown(setting.name, ", ".join(says), source))
    return found


def _small(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError:
        return None  # there is none, or it is half written, or of another program: the report does without
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    target = io.BytesIO()
    picture.save(target, format="WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(target.getvalue()).decode("ascii")
