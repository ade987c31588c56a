"""What a study directory says of itself, beside its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inlay.errors import ConfigError
from inlay.run.evaluation.table import better
from inlay.study.directory import tuned
from inlay.study.statistics.sample import has
from inlay.study.table import Row

DESIGN = "design.json"
TRAINING_LOSS = "smoothed_loss"
"""Low on pictures that were learned by heart, too; never what a study is judged by unless it is asked for."""
LOWER = ("fd", "fid", "kd", "kid", "distance", "loss", "error")
HIGHER = ("clip", "dino", "likeness", "similarity", "fidelity", "alignment", "gain", "score")
"""Parts of the names of other metrics than ours that tell which way they are good."""


@dataclass(frozen=True)
class Facts:
    """A study as it was meant."""

    title: str = ""
    metrics: tuple[str, ...] = ()
    """What it compares by, the first being what it is judged by; empty for everything that was measured."""
    higher: dict[str, bool] = field(default_factory=dict)
    """Whether a greater value is better, as far as the study says."""
    left_out: tuple[tuple[str, int], ...] = ()
    """Reasons why combinations are no part of the study, and how many each."""
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What was found before the study began, see :func:`inlay.study.directory.tuned`."""


def read_facts(directory: Path) -> Facts:
    """Return what a study directory's design and ledger say; an empty statement where there is no design.

    Raises:
        ConfigError: the file is broken.
    """
    path = directory / DESIGN
    try:
        design = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Facts(directory.resolve().name)
    except ValueError as error:
        raise ConfigError(f"{path}: not a design: {error}") from None
    return Facts(
        design.get("title") or directory.resolve().name,
        tuple(design.get("metrics") or ()),
        dict(design.get("higher_is_better") or {}),
        tuple((str(one["reason"]), int(one["count"])) for one in design.get("left_out") or ()),
        tuned(directory),
    )


def higher_is_better(metric: str, facts: Facts) -> bool | None:
    """Return which way a metric is good: as the study says, inlay, or the words in its name; None if none tells."""
    if metric in facts.higher:
        return facts.higher[metric]
    known = better(metric)
    if known is not None:
        return known == "higher"
    words = metric.lower().replace("-", "_").replace(".", "_").split("_")
    if any(word in LOWER for word in words):
        return False
    return True if any(word in HIGHER for word in words) else None


def metrics_of(rows: Sequence[Row], facts: Facts, wanted: str | None = None) -> list[str]:
    """Return the metrics to report, the one that the study is judged by first.

    Raises:
        ConfigError: `wanted` was not measured.
    """
    measured = list(dict.fromkeys(metric for row in rows for metric in row.metrics if has(row, metric)))
    stated = [metric for metric in facts.metrics if metric in measured]
    found = stated or sorted(measured, key=lambda metric: (metric == TRAINING_LOSS, metric == "validation_loss"))
    if wanted is None:
        return found
    if wanted not in measured:
        raise ConfigError(f"--metric {wanted}: no cell has it; there are {', '.join(sorted(measured)) or 'none'}")
    return [wanted, *(metric for metric in found if metric != wanted)]
