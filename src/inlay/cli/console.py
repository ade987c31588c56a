"""What the verbs share: the terminal, tables, JSON, and numbers that a person can read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from inlay.run.human import human_bytes, human_count, human_seconds

__all__ = [
    "chart",
    "console",
    "emit_json",
    "human_bytes",
    "human_count",
    "human_seconds",
    "print_table",
]

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
