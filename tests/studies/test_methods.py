"""The committed records of studies/methods say what its README says of them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

import pytest
from scipy.stats import spearmanr

from inlay.study.report.build import write_report
from inlay.study.statistics.anova import one_way
from inlay.study.statistics.sample import sample_of
from inlay.study.table import load_table

RESULTS = Path(__file__).parents[2] / "studies" / "methods" / "results"
STEPS, SECONDS, TIMING = RESULTS / "steps", RESULTS / "seconds", RESULTS / "timing"
PUBLISHED = {"full": 43.33, "adapter": 47.41, "lora": 35.68, "prefix": 32.57, "bitfit": 68.53}
"""FID, Kim, Ahn and Jung."""


def by_method(rows, metric):
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(str(row.factors["method"]), []).append({**row.metrics, **row.costs}[metric])
    return found


@pytest.fixture(scope="module")
def rows():
    return load_table(STEPS)


@pytest.fixture(scope="module")
def timed():
    return load_table(SECONDS)


def test_every_method_was_run_with_every_seed_on_one_base(rows, timed):
    for found in (rows, timed):
        assert len(found) == 21
        assert {row.status for row in found} == {"done"}
        assert {row.seed for row in found} == {0, 1, 2}
    hashes = {json.loads(path.read_text())["base"]["hash"] for path in RESULTS.glob("*/cells/*/record.json")}
    assert len(hashes) == 1


@pytest.mark.parametrize(("study", "step", "hypernetwork"), [(STEPS, 234, 3e-4), (SECONDS, 553, 1e-4)])
def test_learning_rates_were_found_by_the_held_out_loss_over_the_same_levels(study, step, hypernetwork):
    tuned = load_table(study, stage="tuning")
    assert len(tuned) == 49
    (failed,) = [row for row in tuned if row.status != "done"]
    assert failed.factors["method"] == "full"
    assert f"the loss at step {step} is not finite" in str(failed.reason)
    rates = {record["method"]: record["rate"] for record in found_rates(study)}
    assert rates == {
        "full": 1e-4,
        "adapter": 3e-3,
        "lora": 3e-3,
        "prefix": 3e-2,
        "bitfit": 1e-2,
        "hypernetwork": hypernetwork,
        "textual_inversion": 3e-2,
    }


def found_rates(study):
    for path in study.glob("cells/*/record.json"):
        if not path.parent.name.startswith("tuning"):
            config = json.loads(path.read_text())["config"]
            name = path.parent.name.rpartition("_s")[0]
            yield {"method": name, "rate": config["train"]["learning_rate"]}


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (
            STEPS,
            {
                "bitfit": (75.8, 5.4),
                "full": (81.2, 3.8),
                "hypernetwork": (98.6, 13.3),
                "adapter": (104.2, 1.5),
                "prefix": (112.3, 2.5),
                "lora": (136.8, 4.5),
                "textual_inversion": (207.5, 47.8),
            },
        ),
        (
            SECONDS,
            {
                "bitfit": (79.2, 9.1),
                "full": (81.3, 6.6),
                "hypernetwork": (97.2, 4.6),
                "adapter": (104.6, 11.1),
                "prefix": (121.3, 17.2),
                "lora": (127.3, 11.7),
                "textual_inversion": (172.2, 42.2),
            },
        ),
    ],
)
def test_distances_and_their_scatter(study, expected):
    found = by_method(load_table(study), "frechet")
    assert {name: (round(mean(values), 1), round(stdev(values), 1)) for name, values in found.items()} == expected


def test_the_order_is_the_same_at_equal_steps_and_seconds_and_nearly_the_published_one_turned_round(rows, timed):
    first, second = (by_method(found, "frechet") for found in (rows, timed))
    for found in (first, second):
        means = [mean(found[name]) for name in PUBLISHED]
        order = spearmanr(list(PUBLISHED.values()), means)
        assert (round(order.statistic, 2), round(order.pvalue, 2)) == (-0.80, 0.10)
    ranked = [sorted(found, key=lambda name: mean(found[name])) for found in (first, second)]
    assert ranked[0] == ranked[1]
    for name, distances in first.items():
        moved = abs(mean(distances) - mean(second[name]))
        assert moved < max(stdev(distances), stdev(second[name]))


def test_steps_within_the_seconds(timed):
    assert all(120 <= seconds < 123 for values in by_method(timed, "training_seconds").values() for seconds in values)
    steps = {
        name: (round(mean(values)), min(values), max(values)) for name, values in by_method(timed, "steps").items()
    }
    assert steps == {
        "bitfit": (1257, 1148, 1402),
        "full": (803, 773, 838),
        "hypernetwork": (1047, 1001, 1086),
        "adapter": (1386, 1186, 1576),
        "prefix": (1288, 1165, 1470),
        "lora": (1343, 1188, 1509),
        "textual_inversion": (1025, 984, 1091),
    }
    alone = by_method(load_table(TIMING), "seconds_per_step")
    shares = [mean(values) / mean(alone[name]) for name, values in by_method(timed, "seconds_per_step").items()]
    assert (round(100 * min(shares)), round(100 * max(shares))) == (86, 101)


@pytest.mark.parametrize(
    ("study", "f", "sentence"),
    [
        (STEPS, 35.7, "clearly better than adapter, hypernetwork, lora and prefix; it cannot be told from full"),
        (SECONDS, 17.5, "clearly better than adapter, lora and prefix; it cannot be told from full and hypernetwork"),
    ],
)
def test_methods_differ_and_the_first_two_cannot_be_told_apart(study, f, sentence, tmp_path):
    rows = load_table(study)
    report, _ = write_report(study, rows, tmp_path, draws=999, without=["method=textual_inversion"])
    (line,) = [line for line in report.parts[0].analysis.lines if line.adjusted is not None]
    assert (line.second.freedom, round(line.second.f, 1)) == (5, f)
    assert sentence in " ".join(one.text for one in report.summary)
    small = [row for row in rows if row.factors["method"] != "textual_inversion"]
    assert one_way(sample_of(small, "kid", ["method"]), "method").p < 0.01


def test_no_small_method_is_ahead_of_bitfit_at_an_equal_rate():
    losses = {}
    for row in load_table(STEPS, stage="tuning"):
        if row.status == "done":
            record = json.loads((STEPS / "cells" / row.cell / "record.json").read_text())
            rate = record["config"]["train"]["learning_rate"]
            losses[row.factors["method"], rate] = record["metrics"]["validation_loss"]
    for rate in {rate for _, rate in losses}:
        assert all(losses["bitfit", rate] < losses[name, rate] for name in ("lora", "prefix"))
    assert round(losses["full", 3e-5], 3) == 0.352
    assert min(losses[name, 3e-5] for name in ("bitfit", "adapter", "lora", "prefix")) > 0.433


def test_times_of_a_step():
    times = by_method(load_table(TIMING), "seconds_per_step")
    full = mean(times["full"])
    shares = {name: round(100 * mean(values) / full) for name, values in times.items()}
    assert shares == {
        "full": 100,
        "hypernetwork": 91,
        "textual_inversion": 85,
        "bitfit": 71,
        "lora": 71,
        "prefix": 65,
        "adapter": 64,
    }
