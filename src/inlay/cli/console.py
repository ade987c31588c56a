"""What the verbs share: the terminal, tables, JSON, and numbers that a person can read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

# Square brackets and colons in paths, captions and types are text, never markup or the names of emoji.
console = Console(markup=False, emoji=False, highlight=False)


def emit_json(data: Any) -> None:
    """Print one JSON document for machines on standard output. Not-a-number is refused: JSON has none."""
    print(json.dumps(data, indent=2, allow_nan=False))


UNBROKEN = 32
"""Letters up to which the first column of a table keeps its words whole."""


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print rows under headers; headers that start with ">" name columns of numbers, aligned to the right."""
    if title:
        console.print(title, style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    texts = [[str(cell) for cell in row] for row in rows]
    for index, header in enumerate(headers):
        # Names can be copied from a row's beginning only where they are not broken.
        names = index == 0 and all(len(row[0]) <= UNBROKEN for row in texts)
        justify = "right" if header.startswith(">") else "left"
        table.add_column(header.removeprefix(">"), justify=justify, overflow="fold", no_wrap=names)
    for row in texts:
        table.add_row(*row)
    console.print(table)
    console.print()


def chart(values: Sequence[float], width: int = 64, height: int = 5) -> list[str]:
    """Return a bar chart over 0 as rows of text, the highest first; each column is the mean of its values.

    Args:
        values: not negative, not all 0.
        width: columns at most; with fewer values, each is a column.
        height: rows.
    """
    width = min(width, len(values))
    ends = [number * len(values) // width for number in range(width + 1)]
    means = [sum(values[first:end]) / (end - first) for first, end in pairwise(ends)]
    # In eighths of a row, for which there are letters; what is not 0 can be seen.
    top = max(means)
    eighths = [max(round(8 * height * mean / top), int(mean > 0)) for mean in means]
    return [
        "".join(" ▁▂▃▄▅▆▇█"[min(max(column - 8 * row, 0), 8)] for column in eighths) for row in reversed(range(height))
    ]


def human_bytes(count: float) -> str:
    """Return a size in binary units with three digits: 1536 is "1.50 KiB"."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if abs(count) < 1023.5 or unit == "TiB":
            break
    return f"{_three_digits(count)} {unit}"


def human_count(count: float) -> str:
    """Return a count in thousands, millions, billions or trillions: 859520964 is "860 M"."""
    if abs(count) < 1000:
        return f"{count:.0f}" if count == int(count) else _three_digits(count)
    for unit in ("k", "M", "G", "T"):
        count /= 1000
        if abs(count) < 999.5 or unit == "T":
            break
    return f"{_three_digits(count)} {unit}"


def human_seconds(seconds: float) -> str:
    """Return a duration in at most two units: "4.2 ms", "38 s", "3 min 20 s", "2 h 05 min", "3 d 4 h"."""
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1000)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    return f"{value:.2f}" if magnitude < 9.995 else f"{value:.1f}" if magnitude < 99.95 else f"{value:.0f}"
