"""A report as one HTML file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inlay import __version__
from inlay.run.page import render_page

if TYPE_CHECKING:
    from inlay.study.report.build import Report
    from inlay.study.report.samples import Shown

HEADS = {
    "supported": "What the data support",
    "open": "What they do not decide",
    "caution": "What to bear in mind",
}
OPEN_TABLES = ("settings-", "anova-")
"""Tables that are seen without a click; the others can be opened."""


def render(report: Report, shown: Sequence[Shown]) -> str:
    """Return the page."""
    said = [
        (kind, head, [sentence.text for sentence in report.summary if sentence.kind == kind])
        for kind, head in HEADS.items()
    ]
    return render_page(
        Path(__file__).parent,
        {"unbroken": unbroken},
        version=__version__,
        report=report,
        said=[one for one in said if one[2]],
        shown=shown,
        opened=lambda table: table.name.startswith(OPEN_TABLES),
        counts={status: sum(row.status == status for row in report.rows) for status in ("done", "failed", "missing")},
    )


def unbroken(text: str) -> str:
    """Return text in which no line ends between a number and its sign."""
    space = "\N{NO-BREAK SPACE}"
    for old in (" %", " < 0", " = "):
        text = text.replace(old, old.replace(" ", space))
    return text
