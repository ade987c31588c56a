"""The committed records of studies/positions say what its README says of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from inlay.study.report.build import write_report
from inlay.study.statistics.anova import one_way
from inlay.study.statistics.sample import make_sample
from inlay.study.table import load_table

SUBJECTS = Path(__file__).parents[2] / "studies" / "positions" / "results" / "subjects"
NUMBER = re.compile(r"(\d+\.?\d*(?:e-?\d+)?)")
BASE = {"pip": 0.3353, "rolo": 0.2486, "momo": 0.3087}
"""CLIP-I of the base's own pictures with the same noise: its mean is where every pair starts."""


@pytest.fixture(scope="module")
def rows():
    return load_table(SUBJECTS)


@pytest.fixture(scope="module")
def means(rows):
    """The mean CLIP-I of each pair over the subjects."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row.factors["input"], row.factors["output"]), []).append(row.metrics["clip_i"])
    return {pair: sum(values) / len(values) for pair, values in found.items()}


def test_every_pair_was_run_on_every_subject_with_one_base(rows):
    assert len(rows) == 60
    assert {row.status for row in rows} == {"done"}
    assert {row.task for row in rows} == {"pip", "rolo", "momo"}
    hashes = {json.loads(path.read_text())["base"]["hash"] for path in SUBJECTS.glob("cells/*/record.json")}
    assert len(hashes) == 1


def test_all_start_where_the_base_stands(rows):
    for row in rows:
        record = json.loads((SUBJECTS / "cells" / row.cell / "record.json").read_text())
        assert round(record["evaluation"]["history"][0]["metrics"]["clip_i"], 4) == BASE[str(row.task)]
        assert row.metrics["clip_i"] > BASE[str(row.task)]


def test_the_two_pairs_that_stand_out(means):
    ordered = sorted(means, key=means.__getitem__, reverse=True)
    assert ordered[:3] == [("CA_c", "CA_c"), ("CA_out", "FFN_in"), ("CA_out", "Trans_out")]
    assert ordered[-1] == ("SA_out", "Trans_out")
    assert [round(means[pair], 3) for pair in (*ordered[:3], ordered[-1])] == [0.507, 0.495, 0.417, 0.342]
    middle = sorted(means.values())[2:14]
    assert middle[-1] - middle[0] < 0.0205


def test_of_the_pairs_that_read_pictures_one_is_first_on_every_subject(rows):
    for task in BASE:
        mine = [row for row in rows if row.task == task and row.factors["input"] != "CA_c"]
        best = max(mine, key=lambda row: row.metrics["clip_i"])
        assert (best.factors["input"], best.factors["output"]) == ("CA_out", "FFN_in")


@pytest.mark.parametrize(
    ("factor", "freedom", "f", "p", "eta"),
    [("input", (9, 10), 6.19, 0.0044, 0.85), ("output", (6, 13), 2.62, 0.069, 0.55)],
)
def test_one_way_over_the_twenty_pairs_as_published(means, factor, freedom, f, p, eta):
    names = {"input": [pair[0] for pair in means], "output": [pair[1] for pair in means]}
    found = one_way(make_sample(list(means.values()), names), factor)
    assert (found.freedom, 20 - 1 - found.freedom) == freedom
    assert found.f == pytest.approx(f, abs=0.005)
    assert found.p == pytest.approx(p, rel=0.02)
    assert found.effect.eta_squared == pytest.approx(eta, abs=0.005)


def test_the_report_comes_out_of_the_records_as_it_is_committed(rows, tmp_path):
    report, folder = write_report(SUBJECTS, rows, tmp_path / "report")
    said = " ".join(sentence.text for sentence in report.summary).replace("\N{NO-BREAK SPACE}", " ")
    assert "input matters for clip_i (F(7, 12) = 33.4, p < 0.001)" in said
    assert "output matters for clip_i (F(4, 12) = 13.3, p < 0.001)" in said
    assert "it cannot be told from CA_out / FFN_in" in said
    assert "Of the variance that is its own or chance, it explains 79 % (95 % interval 55 % to 88 %)" in said
    assert "about 19 runs of each would be needed" in said
    # Words are the same to the letter; numbers but for rounding, which differs by processor.
    told, kept = (NUMBER.split((place / "report.md").read_text()) for place in (folder, SUBJECTS / "report"))
    assert told[::2] == kept[::2]
    assert list(map(float, told[1::2])) == pytest.approx(list(map(float, kept[1::2])), rel=0.02, abs=0.002)
