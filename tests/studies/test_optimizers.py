"""The committed records of studies/optimizers say what its README says of them."""

from __future__ import annotations

import statistics
from pathlib import Path

from inlay.study.report.analysis import analyse
from inlay.study.report.facts import Facts
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


def test_single_runs_scatter_by_less_than_what_would_be_found():
    rows = [row for row in load_table(RESULTS / "subject") if not str(row.factors["optimizer"]).startswith("prodigy")]
    analysis = analyse(rows, "clip_i", Facts(), draws=99)
    assert analysis.deviation is not None
    assert round(analysis.deviation, 3) == 0.008
    pairs = {frozenset((one.first, one.second)): one for factor in analysis.compared for one in factor.tukey}
    behind = [one for pair, one in pairs.items() if "muon_low" in pair]
    assert len(behind) == 11
    assert all(one.p is not None and one.p < 0.001 for one in behind)
    rates = pairs[frozenset(("schedule_free_high", "schedule_free_low"))]
    assert rates.p is not None
    assert rates.p < 0.05


def test_prodigy_with_its_first_steps_corrected():
    assert shown("prodigy") == {"prodigy_corrected": (0.579, 0.008), "prodigy_corrected_half": (0.574, 0.007)}
