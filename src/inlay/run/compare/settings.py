"""In which settings runs differ, and what to call a run's method so that it is told from the others'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inlay.run.compare.gather import Run

ABSENT = None
"""Stands for a setting that a run does not have, such as another method's."""
OFF = {"null", "false", "none"}
"""Settings that do nothing. A run made before inlay had them does not differ from one that leaves them off."""


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return nested settings by dotted keys; lists of sections by numbers, as overrides address them."""
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        value = {str(number): inner for number, inner in enumerate(value)}
    if not isinstance(value, dict):
        return {key: value}
    return {
        name: found
        for child, inner in value.items()
        for name, found in flat(inner, f"{key}.{child}".strip(".")).items()
    }


def differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[str | None]]:
    """Return the settings that are not the same in all runs: by key, the value of each as text, None where absent.

    The learning rate is that which is used, also where the run file leaves it to the method.
    """
    tables = []
    for config in configs:
        table = flat(config)
        table.pop("output", None)
        if table.get("train.learning_rate", ABSENT) is None:
            table["train.learning_rate"] = _own_rates(config)
        tables.append({key: shown(value) for key, value in table.items()})
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = {key: [table.get(key) for table in tables] for key in keys}
    return {key: row for key, row in rows.items() if _differs(row)}


def _differs(row: Sequence[str | None]) -> bool:
    values = set(row)
    return len(values) > 1 and not (ABSENT in values and values - {ABSENT} <= OFF)


def shown(value: Any) -> str:
    """Return a setting as a run file would have it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def method_labels(runs: Sequence[Run]) -> list[str]:
    """Return each run's methods in words, with those settings in which runs of the same methods differ."""
    names = [[method["name"] for method in methods_of(run.config)] for run in runs]
    labels = []
    for run, own in zip(runs, names, strict=True):
        like = [other.config for other, theirs in zip(runs, names, strict=True) if theirs == own]
        tables = [flat({"method": config.get("method"), "stack": config.get("stack")}) for config in like]
        mine = flat({"method": run.config.get("method"), "stack": run.config.get("stack")})
        told = [
            f"{key.rpartition('.')[2]} {shown(value)}"
            for key, value in mine.items()
            if any(table.get(key) != value for table in tables)
        ]
        labels.append(", ".join([" + ".join(own) or "from scratch", *told]))
    return labels


def methods_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a run's methods as they are set, none of a run from scratch."""
    stated = [config.get("method"), *(config.get("stack") or [])]
    return [{"name": method} if isinstance(method, str) else method for method in stated if method]


def _own_rates(config: dict[str, Any]) -> list[float] | None:
    from inlay.methods import METHODS

    names = [method["name"] for method in methods_of(config)]
    if not names or any(name not in METHODS for name in names):
        return None
    return [METHODS[name].learning_rate for name in names]
