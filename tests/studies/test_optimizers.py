"""The committed records of studies/optimizers say what its README says of them."""

from __future__ import annotations

import statistics
from pathlib import Path

from inlay.study.table import load_table

RESULTS = Path(__file__).parents[2] / "studies" / "optimizers" / "results"


def shown(name):
    """Return mean and standard deviation of CLIP-I by setting."""
    rows = load_table(RESULTS / name)
    assert all(row.status == "done" for row in rows)
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(str(row.factors["optimizer"]), []).append(row.metrics["clip_i"])
    assert {len(values) for values in found.values()} == {3}
    return {name: (round(statistics.mean(v), 3), round(statistics.stdev(v), 3)) for name, v in found.items()}


def test_likeness_by_optimizer_and_rate():
    assert shown("subject") == {
        "adamw_low": (0.561, 0.007),
        "adamw_middle": (0.573, 0.004),
        "adamw_high": (0.571, 0.018),
        "schedule_free_low": (0.548, 0.005),
        "schedule_free_middle": (0.561, 0.011),
        "schedule_free_high": (0.578, 0.007),
        "muon_low": (0.478, 0.001),
        "muon_middle": (0.559, 0.005),
        "muon_high": (0.561, 0.009),
        "adafactor_low": (0.559, 0.003),
        "adafactor_middle": (0.575, 0.004),
        "adafactor_high": (0.575, 0.009),
        "prodigy": (0.544, 0.051),
        "prodigy_twice": (0.474, 0.077),
    }


def test_prodigy_with_its_first_steps_corrected():
    assert shown("prodigy") == {"prodigy_corrected": (0.579, 0.008), "prodigy_corrected_half": (0.574, 0.007)}
