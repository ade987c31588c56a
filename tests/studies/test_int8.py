"""The committed records of studies/int8 say what its README says of them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from inlay.metrics.intervals import student_quantile
from inlay.study.table import load_table

RESULTS = Path(__file__).parents[2] / "studies" / "int8" / "results" / "subject"
METHODS = ("lora", "dora", "adapter")


def pairs(read):
    """Return by method what `read` gives of each seed's two runs, float32 and 8 bits."""
    rows = load_table(RESULTS)
    assert len(rows) == 18
    assert all(row.status == "done" for row in rows)
    found = {(row.factors["method"], row.factors["frozen"], row.seed): read(row) for row in rows}
    return {
        method: [(found[method, "float32", seed], found[method, "int8", seed]) for seed in range(3)]
        for method in METHODS
    }


def test_likeness():
    found = pairs(lambda row: row.metrics["clip_i"])
    means = {
        method: [round(statistics.mean(side), 3) for side in zip(*both, strict=True)] for method, both in found.items()
    }
    assert means == {"lora": [0.573, 0.574], "dora": [0.576, 0.575], "adapter": [0.567, 0.571]}
    apart = [eight - whole for both in found.values() for whole, eight in both]
    middle = statistics.mean(apart)
    half = student_quantile(0.975, len(apart) - 1) * statistics.stdev(apart) / len(apart) ** 0.5
    assert (round(middle, 4), round(middle - half, 4), round(middle + half, 4)) == (0.0013, -0.0009, 0.0034)


def test_the_loss_is_higher_in_every_pair_and_hardly():
    def smoothed_loss(row):
        return json.loads((RESULTS / "cells" / row.cell / "record.json").read_text())["metrics"]["smoothed_loss"]

    apart = [eight - whole for both in pairs(smoothed_loss).values() for whole, eight in both]
    assert min(apart) > 0
    assert max(apart) < 0.001


def test_time_of_a_step():
    found = pairs(lambda row: row.costs["training_seconds"])
    ratios = {
        method: statistics.mean(eight for _, eight in both) / statistics.mean(whole for whole, _ in both)
        for method, both in found.items()
    }
    assert ratios == pytest.approx({"lora": 1.21, "dora": 1.18, "adapter": 1.28}, abs=0.005)
