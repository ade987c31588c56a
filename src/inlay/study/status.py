"""How far a study is, as its directory tells."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from inlay.study.directory import at_work, read_design, states, tuned
from inlay.study.ledger import read_ledger
from inlay.study.settings import read_study


def study_status(directory: Path) -> dict[str, Any]:
    """Return JSON-ready data on a study directory.

    Raises:
        ConfigError: it is none.
    """
    design = read_design(directory)
    found = states(directory, [cell["id"] for cell in design["cells"]], read_study(directory).execution.retries)
    events = read_ledger(directory)
    stages: dict[str, dict[str, int]] = {}
    for stage in dict.fromkeys(cell["stage"] for cell in design["cells"]):
        counted = Counter(found[cell["id"]].status for cell in design["cells"] if cell["stage"] == stage)
        stages[stage] = {status: counted[status] for status in ("done", "failed", "missing")}
    return {
        "directory": str(directory),
        "title": design["title"],
        "design": design["design"],
        "stages": stages,
        "left_out": design["left_out"],
        "choices": {
            group: {"level": event["level"], "scores": event["scores"]} for group, event in tuned(directory).items()
        },
        "failed": [
            {"cell": cell, "reason": state.reason, "attempts": state.attempts}
            for cell, state in found.items()
            if state.status == "failed"
        ],
        "attempts_failed": sum(event["event"] in ("failed", "lost") for event in events),
        "driver": at_work(directory),
        "last_event": events[-1]["time"] if events else None,
    }
