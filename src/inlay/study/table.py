"""What a study measured, one row a cell: all that statistics and reports read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
