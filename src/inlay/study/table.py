"""What a study measured, one row a cell: all that statistics and reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from inlay.study.directory import State

Level = str | float | int | bool | None
"""A level of a factor, as the study file gives it."""
Status = Literal["done", "failed", "missing"]


@dataclass(frozen=True)
class Row:
    """One cell of a study, whether it has a result or not."""

    cell: str
    """Its id, and the name of its directory under `cells/`."""
    factors: Mapping[str, Level]
    """The levels that make it, by factor; task and seed are not among them."""
    task: str | None
    """The subject or domain that it learned; None in a study of one."""
    seed: int | None
    """Of initialisation, order and noise; None when the study does not vary it."""
    status: Status
    """`done`: it has metrics; `failed`: it ended without, see `reason`; `missing`: it has not run."""
    reason: str | None = None
    """Why there is no result, or why a metric is null."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """By name; null with a `reason` where a metric could not be measured."""
    costs: Mapping[str, float | None] = field(default_factory=dict)
    """`training_seconds`, `seconds_per_step`, `peak_bytes`, `trainable_parameters`, `result_bytes` and others."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON-ready data."""
        return {
            "cell": self.cell,
            "factors": dict(self.factors),
            "task": self.task,
            "seed": self.seed,
            "status": self.status,
            "reason": self.reason,
            "metrics": dict(self.metrics),
            "costs": dict(self.costs),
        }


def load_table(directory: Path, stage: Literal["main", "tuning"] = "main") -> list[Row]:
    """Return the rows of a study directory, in the order of its design; cells without a result have no metrics.

    Args:
        directory: a study directory, finished or not.
        stage: the cells of the study, or the runs that found its tuned setting.

    Raises:
        ConfigError: it is no study directory, or its cells ran on unequal weights of one base.
        ArtifactError: a record is broken.
    """
    from inlay.study.directory import done_records, read_design, states
    from inlay.study.settings import read_study

    design = read_design(directory)
    study = read_study(directory)
    cells = [cell for cell in design["cells"] if cell["stage"] == stage]
    found = states(directory, [cell["id"] for cell in cells], study.execution.retries)
    records = done_records(directory, [name for name, state in found.items() if state.status == "done"])
    return [_row(cell, found[cell["id"]], records.get(cell["id"]), study.metrics) for cell in cells]


def _row(cell: dict[str, Any], state: State, record: dict[str, Any] | None, wanted: Sequence[str]) -> Row:
    factors = dict(cell["factors"])
    head = {"cell": cell["id"], "factors": factors, "task": cell["task"], "seed": cell["seed"]}
    if record is None:
        return Row(**head, status=state.status, reason=state.reason)
    metrics = {
        name: value if isinstance(value, int | float) and not isinstance(value, bool) else None
        for name, value in record["metrics"].items()
    }
    missing = {name: str(reason) for name, reason in record.get("missing", {}).items()}
    for name in wanted:
        if name not in metrics:
            metrics[name] = None
            missing.setdefault(name, "the record has no such metric")
    shown = {name: metrics[name] for name in wanted or metrics}
    reasons = [f"{name}: {missing[name]}" for name, value in shown.items() if value is None and name in missing]
    costs = {name: value for name, value in record["costs"].items() if value is None or isinstance(value, int | float)}
    return Row(**head, status="done", reason="; ".join(reasons) or None, metrics=shown, costs=costs)
