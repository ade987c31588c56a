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
"""Settings whose pictures are shown: the best, and the others evenly down to the worst."""


@dataclass(frozen=True)
class Shown:
    """The pictures of one cell."""

    title: str
    says: str
    source: str
    """A data address."""


def samples(directory: Path, rows: Sequence[Row], settings: Sequence[Setting], metric: str) -> list[Shown]:
    """Return pictures of one cell of each setting, settings in their order: the cell nearest to the setting's mean.

    Args:
        directory: the study directory.
        rows: of the study.
        settings: best first.
        metric: by which they are ordered.
    """
    by_id = {row.cell: row for row in rows}
    drawn = []
    for setting in settings:
        cells = [cell for cell in setting.ids if (directory / "cells" / cell / SAMPLES).is_file()]
        if cells:
            drawn.append((setting, min(cells, key=lambda cell: _distance(by_id[cell], setting, metric))))
    if len(drawn) > MOST:
        drawn = [drawn[round(place * (len(drawn) - 1) / (MOST - 1))] for place in range(MOST)]
    found = []
    for setting, cell in drawn:
        source = _small(directory / "cells" / cell / SAMPLES)
        if source:
            row = by_id[cell]
            says = [f"{metric} {number(row.metrics[metric])}" if has(row, metric) else row.reason or row.status]
            says += [f"task {row.task}"] if row.task is not None else []
            says += [f"seed {row.seed}"] if row.seed is not None else []
            found.append(Shown(setting.name, ", ".join(says), source))
    return found


def _distance(row: Row, setting: Setting, metric: str) -> tuple[float, str]:
    value = row.metrics.get(metric)
    far = float("inf") if value is None or setting.mean is None else abs(value - setting.mean)
    return far, row.cell


def _small(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError:
        return None  # half written, or of another program: the report does without
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    target = io.BytesIO()
    picture.save(target, format="WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(target.getvalue()).decode("ascii")
