"""Tables as data, and as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inlay.study.report.words import UNKNOWN, number, p_value, percent

Value = str | float | int | None
FORMATS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "count": lambda value: f"{value:,.0f}",
    "number": number,
    "p": p_value,
    "share": percent,
}


@dataclass(frozen=True)
class Column:
    """A column: its title and how its values are written."""

    title: str
    kind: str = "number"
    """One of `FORMATS`."""

    def show(self, value: Value) -> str:
        """Return a value as text."""
        return UNKNOWN if value is None else FORMATS[self.kind](value)


@dataclass(frozen=True)
class Table:
    """A table."""

    name: str
    """Of its files."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""

    @property
    def texts(self) -> list[list[str]]:
        """The cells as text."""
        return [[column.show(value) for column, value in zip(self.columns, row, strict=True)] for row in self.rows]


def make_table(
    name: str, title: str, columns: Sequence[str | tuple[str, str]], rows: Sequence[Sequence[Value]], note: str = ""
) -> Table:
    """Return a table; a column is its title, for text, or a title and a kind."""
    made = tuple(Column(one, "text") if isinstance(one, str) else Column(*one) for one in columns)
    return Table(name, title, made, tuple(tuple(row) for row in rows), note)


def to_markdown(table: Table) -> str:
    """Return a table for Markdown, with its title and note."""
    align = ["---" if column.kind == "text" else "---:" for column in table.columns]
    lines = [[column.title for column in table.columns], align, *table.texts]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"**{table.title}**\n\n{body}\n" + (f"\n{table.note}\n" if table.note else "")


def to_csv(table: Table) -> str:
    """Return a table with all digits; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.title for column in table.columns])
    writer.writerows([["" if value is None else value for value in row] for row in table.rows])
    return text.getvalue()


_ESCAPES = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "²": r"$^2$",
        "η": r"$\eta$",
        "ω": r"$\omega$",
        "–": "--",
        "→": r"$\to$",
        "×": r"$\times$",
        "±": r"$\pm$",
    }
)


def to_latex(table: Table) -> str:
    """Return a table for LaTeX with the package booktabs."""
    align = "".join("l" if column.kind == "text" else "r" for column in table.columns)

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(_ESCAPES) for cell in cells) + r" \\"

    rows = [line(cells) for cells in table.texts]
    note = [rf"\par\smallskip\footnotesize {table.note.translate(_ESCAPES)}"] if table.note else []
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{table.title.translate(_ESCAPES)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            line([column.title for column in table.columns]),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *note,
            r"\end{table}",
            "",
        ]
    )
