"""Rows that a report is asked to leave out."""

from __future__ import annotations

from collections.abc import Sequence

from inlay.errors import ConfigError
from inlay.study.report.words import plural
from inlay.study.statistics.sample import SEED, TASK, level_of
from inlay.study.table import Row


def leave_out(rows: Sequence[Row], without: Sequence[str]) -> tuple[list[Row], str]:
    """Return the rows that are not of certain levels, and what to say about the others.

    Args:
        rows: of a study.
        without: `factor=level`; `task=...` and `seed=...` too. A row of any of them is left out.

    Raises:
        ConfigError: there is no such factor or level, or no row is left.
    """
    names = [*dict.fromkeys(name for row in rows for name in row.factors), TASK, SEED]
    kept = list(rows)
    for one in without:
        name, _, level = one.partition("=")
        if name not in names:
            raise ConfigError(f"--without {one}: {name!r} is no factor; allowed: {', '.join(names)}")
        levels = list(dict.fromkeys(str(level_of(row, name)) for row in rows))
        if level not in levels:
            raise ConfigError(f"--without {one}: {name} has no such level; it has: {', '.join(levels)}")
        kept = [row for row in kept if str(level_of(row, name)) != level]
    if not kept:
        raise ConfigError(f"--without {' '.join(without)}: leaves no cell")
    gone = len(rows) - len(kept)
    return kept, f"Left out, as asked: {plural(gone, 'cell')} of {' and of '.join(without)}." if without else ""
