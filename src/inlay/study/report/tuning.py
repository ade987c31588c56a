"""What a study found before it began: the tuned setting of each group, and what every level of it came to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from inlay.study.report.tables import Table, make_table
from inlay.study.report.words import listed


def tuning_table(tuned: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Return the table of what was tuned, a group a row; None where nothing was.

    Args:
        tuned: events of the ledger by group; see :func:`inlay.study.directory.tuned`.
    """
    if not tuned:
        return None
    groups = {group: json.loads(group) for group in tuned}
    factors = [
        name for name in _union(groups.values()) if any(levels.get(name) is not None for levels in groups.values())
    ]
    tried = _union(event["scores"] for event in tuned.values())
    rows, at_the_end = [], []
    for group, event in tuned.items():
        named = [None if (level := groups[group].get(name)) is None else str(level) for name in factors]
        scores, chosen = event["scores"], None if event["level"] is None else str(event["level"])
        rows.append([*named, *(scores.get(level) for level in tried), chosen])
        if chosen is not None and chosen in _ends(scores):
            at_the_end.append(" ".join([*(name for name in named if name), chosen]))
    first = next(iter(tuned.values()))
    note = f"{first['metric']} of the runs that tried each {first['key']}; a dash where one of them failed."
    if at_the_end:
        note += f" At an end of what was tried, so that another may be better still: {listed(at_the_end)}."
    columns = [*factors, *((level, "number") for level in tried), "chosen"]
    return make_table("tuning", f"{first['key']}, found before the study began", columns, rows, note)


def _union(each: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in each for name in names))


def _ends(levels: Iterable[str]) -> set[str]:
    """Return the least and the greatest of levels; none where they are no numbers, or only one."""
    try:
        ranked = sorted(levels, key=float)
    except ValueError:
        return set()
    return {ranked[0], ranked[-1]} if len(ranked) > 1 else set()
