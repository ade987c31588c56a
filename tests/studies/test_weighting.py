"""The committed records of studies/weighting say what its README says of them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml

from inlay.study.statistics.anova import anova
from inlay.study.statistics.sample import sample_of
from inlay.study.table import load_table

FOLDER = Path(__file__).parents[2] / "studies" / "weighting"
RESULTS = FOLDER / "results" / "steps"
TARGETS, WEIGHTINGS = ("v_prediction", "epsilon"), ("plain", "min_snr")


@pytest.fixture(scope="module")
def rows():
    return load_table(RESULTS)


def of(rows, metric, target, weighting):
    """Return the values of one setting, by seed."""
    found = {
        row.seed: row.metrics[metric]
        for row in rows
        if (row.factors["prediction"], row.factors["weighting"]) == (target, weighting)
    }
    return [found[seed] for seed in sorted(found)]


def test_every_setting_was_run_with_every_seed_on_one_base(rows):
    assert {row.status for row in rows} == {"done"}
    assert len(rows) == 12
    assert all(len(of(rows, "kid", target, name)) == 3 for target in TARGETS for name in WEIGHTINGS)
    records = [json.loads(path.read_text()) for path in RESULTS.glob("cells/*/record.json")]
    assert len({record["base"]["hash"] for record in records}) == 1
    assert {record["costs"]["images_seen"] for record in records} == {600 * 64}


def test_the_table(rows):
    lines = [
        f"| {target.replace('_prediction', '')} | {weighting.replace('_snr', '-SNR')} | "
        + " | ".join(
            f"{scale * mean(values):.{digits}f} ± {scale * stdev(values):.{digits}f}{unit}"
            for metric, scale, digits, unit in (
                ("kid", 1, 2, ""),
                ("frechet", 1, 1, ""),
                ("accuracy_class", 100, 1, " %"),
                ("accuracy_colour", 100, 1, " %"),
            )
            for values in [of(rows, metric, target, weighting)]
        )
        + " |"
        for target in TARGETS
        for weighting in WEIGHTINGS
    ]
    readme = (FOLDER / "README.md").read_text()
    assert len(lines) == 4
    for line in lines:
        assert line in readme


def test_the_target_decides_and_the_weighting_does_not(rows):
    terms = [("prediction",), ("weighting",), ("seed",), ("prediction", "weighting")]
    table = anova(sample_of(rows, "kid", ["prediction", "weighting", "seed"]), terms)
    target, weighting = table.test("prediction"), table.test("weighting")
    assert (round(target.f, -2), round(weighting.f, 2)) == (3800, 0.04)
    assert target.p < 0.001
    assert weighting.p > 0.8
    behind = [
        weighted - plain
        for plain, weighted in zip(*(of(rows, "kid", "v_prediction", name) for name in WEIGHTINGS), strict=True)
    ]
    assert round(mean(behind), 2) == 0.14
    assert [difference > 0 for difference in behind] == [True, False, True]


def test_the_recipe_has_what_the_study_found():
    recipe = yaml.safe_load((FOLDER.parents[1] / "recipes" / "tabletop" / "denoiser.yaml").read_text())
    assert recipe["objective"]["prediction"] == "v_prediction"
    assert "weighting" not in recipe["objective"]
