"""The committed records of studies/positions say what its README says of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from inlay.study.report.build import write_report
from inlay.study.statistics.anova import one_way
from inlay.study.statistics.comparisons import tukey
from inlay.study.statistics.sample import make_sample
from inlay.study.table import Row, load_table

RESULTS = Path(__file__).parents[2] / "studies" / "positions" / "results"
SUBJECTS, DREAMBOOTH, FINETUNING = RESULTS / "subjects", RESULTS / "dreambooth", RESULTS / "finetuning"
SPACE = RESULTS / "space"
NUMBER = re.compile(r"(\d+\.?\d*(?:e-?\d+)?)")
BASE = {"pip": 0.3953, "rolo": 0.2864, "momo": 0.3012}
"""CLIP-I of the base's own pictures with the same noise: its mean is where every pair starts."""


@pytest.fixture(scope="module")
def rows():
    return load_table(SUBJECTS)


def means_of(rows, metric):
    """Return the mean of each pair over subjects and seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row.factors["input"], row.factors["output"]), []).append(row.metrics[metric])
    return {pair: sum(values) / len(values) for pair, values in found.items()}


@pytest.fixture(scope="module")
def means(rows):
    return means_of(rows, "clip_i")


@pytest.fixture(scope="module")
def styles():
    return load_table(FINETUNING)


@pytest.mark.parametrize(
    ("study", "metric", "factor", "freedom", "f", "p", "eta"),
    [
        (SUBJECTS, "clip_i", "input", (9, 10), 3.69, 0.0270, 0.77),
        (SUBJECTS, "clip_i", "output", (6, 13), 0.572, 0.746, 0.21),
        (SPACE, "clip_i", "input", (9, 10), 1.083, 0.448, 0.494),
        (SPACE, "clip_i", "output", (6, 13), 1.466, 0.264, 0.404),
        (FINETUNING, "frechet", "input", (9, 10), 7.685, 0.00187, 0.87),
        (FINETUNING, "frechet", "output", (6, 13), 2.297, 0.0984, 0.515),
    ],
)
def test_one_way_over_the_means_of_the_twenty_pairs(study, metric, factor, freedom, f, p, eta):
    found_means = means_of(load_table(study), metric)
    names = {"input": [pair[0] for pair in found_means], "output": [pair[1] for pair in found_means]}
    found = one_way(make_sample(list(found_means.values()), names), factor)
    assert (found.freedom, 20 - 1 - found.freedom) == freedom
    assert found.f == pytest.approx(f, abs=0.005)
    assert found.p == pytest.approx(p, rel=0.02)
    assert found.effect.eta_squared == pytest.approx(eta, abs=0.005)


def test_every_pair_was_run_on_every_subject_with_every_seed_and_one_base(rows):
    assert len(rows) == 180
    assert {row.status for row in rows} == {"done"}
    assert {row.task for row in rows} == {"pip", "rolo", "momo"}
    assert {row.seed for row in rows} == {0, 1, 2}
    hashes = {json.loads(path.read_text())["base"]["hash"] for path in SUBJECTS.glob("cells/*/record.json")}
    assert len(hashes) == 1


def test_all_start_where_the_base_stands(rows):
    for row in rows:
        record = json.loads((SUBJECTS / "cells" / row.cell / "record.json").read_text())
        assert round(record["evaluation"]["history"][0]["metrics"]["clip_i"], 4) == BASE[str(row.task)]
        assert row.metrics["clip_i"] > BASE[str(row.task)]


def test_the_first_pairs_and_the_last(means):
    ordered = sorted(means, key=means.__getitem__, reverse=True)
    first = [("CA_c", "CA_c"), ("Trans_out", "Trans_out"), ("FFN_out", "Trans_out"), ("CA_out", "FFN_in")]
    assert ordered[:4] == first
    assert ordered[-1] == ("SA_out", "Trans_out")
    assert [round(means[pair], 3) for pair in (*first, ordered[-1])] == [0.464, 0.455, 0.450, 0.445, 0.377]


def test_the_best_input_depends_on_the_subject_and_the_worst_pair_does_not(rows):
    for task, best in (("pip", "CA_c"), ("rolo", "CA_c"), ("momo", "Trans_out")):
        found: dict[tuple[str, str], float] = {}
        for row in rows:
            if row.task == task:
                pair = row.factors["input"], row.factors["output"]
                found[pair] = found.get(pair, 0) + row.metrics["clip_i"] / 3
        assert max(found, key=found.__getitem__)[0] == best
        assert min(found, key=found.__getitem__) == ("SA_out", "Trans_out")


def test_seeds_differ_as_wholes(rows):
    for seed, mean in enumerate((0.443, 0.418, 0.423)):
        assert sum(row.metrics["clip_i"] for row in rows if row.seed == seed) / 60 == pytest.approx(mean, abs=5e-4)


def report_as_committed(place: Path, rows: list[Row], into: Path) -> str:
    """Return a report's summary; its words are the committed ones, its numbers too but for rounding."""
    report, folder = write_report(place, rows, into / "report")
    told, kept = (NUMBER.split((where / "report.md").read_text()) for where in (folder, place / "report"))
    assert told[::2] == kept[::2]
    assert list(map(float, told[1::2])) == pytest.approx(list(map(float, kept[1::2])), rel=0.02, abs=0.002)
    return " ".join(sentence.text for sentence in report.summary).replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def space():
    return load_table(SPACE)


def mean_where(rows, **levels):
    """Return the mean CLIP-I of the runs that have these levels of factors."""
    found = [row.metrics["clip_i"] for row in rows if levels.items() <= row.factors.items()]
    assert found
    return sum(found) / len(found)


def test_the_whole_space_was_run_and_agrees_with_the_subjects(space, rows):
    assert len(space) == 320
    assert {row.status for row in space} == {"done"}
    records = [json.loads(path.read_text()) for path in SPACE.glob("cells/*/record.json")]
    assert len(records) == 320
    assert {round(record["evaluation"]["history"][0]["metrics"]["clip_i"], 4) for record in records} == {BASE["pip"]}
    published = {
        (row.factors["input"], row.factors["output"]): row.metrics["clip_i"]
        for row in space
        if row.factors["activation"] == "relu" and row.factors["scale"] == 1
    }
    again = {
        (row.factors["input"], row.factors["output"]): row.metrics["clip_i"]
        for row in rows
        if row.task == "pip" and row.seed == 0
    }
    assert len(published) == 20
    assert published == again


@pytest.mark.parametrize(
    ("factor", "with_sigmoid", "without"),
    [
        ("input", (9, 310, 11.35, 0.248), (9, 230, 19.0, 0.426)),
        ("output", (6, 313, 13.26, 0.203), (6, 233, 11.52, 0.229)),
        ("activation", (3, 316, 36.40, 0.257), (2, 237, 0.138, 0.001)),
        ("scale", (3, 316, 4.97, 0.045), (3, 236, 3.38, 0.041)),
    ],
)
def test_without_sigmoid_the_input_has_the_largest_f(space, factor, with_sigmoid, without):
    for expected, chosen in (
        (with_sigmoid, space),
        (without, [row for row in space if row.factors["activation"] != "sigmoid"]),
    ):
        levels = [str(row.factors[factor]) for row in chosen]
        found = one_way(make_sample([row.metrics["clip_i"] for row in chosen], {factor: levels}), factor)
        freedom, rest, f, eta = expected
        assert (found.freedom, len(chosen) - 1 - found.freedom) == (freedom, rest)
        assert found.f == pytest.approx(f, rel=0.005)
        assert found.effect.eta_squared == pytest.approx(eta, abs=5e-4)


def test_means_and_best_runs_of_the_space(space, means):
    for levels, mean in (
        ({"activation": "sigmoid"}, 0.474),
        ({"activation": "sigmoid", "input": "CA_c"}, 0.521),
        ({"activation": "relu"}, 0.510),
        ({"activation": "silu"}, 0.510),
        ({"activation": "identity"}, 0.508),
        ({"scale": 0.5}, 0.490),
        ({"scale": 1}, 0.500),
        ({"scale": 2}, 0.507),
        ({"scale": 4}, 0.505),
    ):
        assert mean_where(space, **levels) == pytest.approx(mean, abs=5e-4)
    pairs = means_of(space, "clip_i")
    ordered = sorted(pairs, key=pairs.__getitem__, reverse=True)
    first = [("SA_in", "CA_in"), ("CA_c", "CA_c"), ("CA_in", "CA_in")]
    assert ordered[:3] == first
    assert ordered.index(("CA_out", "FFN_in")) == 6
    assert ordered[-1] == ("SA_out", "Trans_out")
    ends = [*first, ordered[6], ordered[-1]]
    assert [round(pairs[pair], 3) for pair in ends] == [0.533, 0.531, 0.528, 0.503, 0.439]
    assert spearmanr([means[pair] for pair in pairs], list(pairs.values())).statistic == pytest.approx(0.80, abs=0.006)
    runs = sorted(space, key=lambda row: row.metrics["clip_i"])
    told = [(*row.factors.values(), round(row.metrics["clip_i"], 3)) for row in (runs[-1], runs[-2], runs[0])]
    assert told == [
        ("SA_in", "CA_in", "silu", 4, 0.565),
        ("FFN_out", "Trans_out", "identity", 4, 0.564),
        ("FFN_in", "FFN_in", "identity", 4, 0.429),
    ]
    assert {tuple(row.factors.values())[:2] for row in runs[1:5]} == {("SA_out", "Trans_out")}


def test_full_dreambooth_is_ahead_of_the_adapters_and_pays_for_it(tmp_path):
    compared = load_table(DREAMBOOTH)
    assert len(compared) == 36
    assert {row.status for row in compared} == {"done"}
    stated = {  # CLIP-I, CLIP-T, distance of the prior, share of copies
        "full": (0.557, 0.494, 3.38, 0.233),
        "CA_c_CA_c": (0.480, 0.511, 1.50, 0.0),
        "CA_out_FFN_in": (0.435, 0.531, 1.26, 0.0),
        "SA_in_CA_in": (0.423, 0.529, 0.70, 0.0),
    }
    for method, expected in stated.items():
        mine = [row for row in compared if row.factors["method"] == method]
        assert len(mine) == 9
        found = [
            sum(row.metrics[name] for row in mine) / 9
            for name in ("clip_i", "clip_t", "prior_distance", "copied_share")
        ]
        assert found == pytest.approx(expected, abs=0.005)
    said = report_as_committed(DREAMBOOTH, compared, tmp_path)
    assert "method matters for clip_i (F(3, 22) = 27.0, p < 0.001)" in said
    assert (
        "full has the highest mean clip_i (0.557, 95 % interval 0.533 to 0.581), clearly better than every other"
        in said
    )


def test_the_two_adapters_of_before_differed_clearly_without_the_one_that_scatters():
    compared = [row for row in load_table(DREAMBOOTH) if row.factors["method"] != "SA_in_CA_in"]
    names = {
        "method": [str(row.factors["method"]) for row in compared],
        "task": [str(row.task) for row in compared],
        "seed": [str(row.seed) for row in compared],
    }
    sample = make_sample([row.metrics["clip_i"] for row in compared], names)
    pairs = tukey(sample, [("method",), ("task",), ("seed",), ("method", "task")], "method")
    (pair,) = (one for one in pairs if {one.first, one.second} == {"CA_c_CA_c", "CA_out_FFN_in"})
    assert sorted(abs(bound) for bound in (pair.bounds.low, pair.bounds.high)) == pytest.approx(
        [0.011, 0.079], abs=5e-4
    )


def test_the_best_run_of_the_space_was_luck(space):
    again = {
        (row.task, row.seed): row.metrics["clip_i"]
        for row in load_table(DREAMBOOTH)
        if row.factors["method"] == "SA_in_CA_in"
    }
    assert again["pip", 0] == max(row.metrics["clip_i"] for row in space)
    assert [round(again["pip", seed], 3) for seed in range(3)] == [0.565, 0.459, 0.433]
    assert all(0.34 < value < 0.47 for place, value in again.items() if place != ("pip", 0))


def test_the_learning_rates_that_were_found():
    events = [json.loads(line) for line in (DREAMBOOTH / "ledger.jsonl").read_text().splitlines()]
    found = {json.loads(one["group"])["method"]: one["level"] for one in events if one["event"] == "choice"}
    assert found == {"full": 3e-4, "CA_c_CA_c": 3e-3, "CA_out_FFN_in": 3e-4, "SA_in_CA_in": 1e-3}


def test_on_a_style_every_pair_ran_and_started_where_the_base_stands(styles):
    assert len(styles) == 60
    assert {row.status for row in styles} == {"done"}
    assert {row.metrics["frechet_infinity"] for row in styles} == {None}
    for row in styles:
        record = json.loads((FINETUNING / "cells" / row.cell / "record.json").read_text())
        assert record["evaluation"]["history"][0]["metrics"]["frechet"] == pytest.approx(224.58, abs=0.01)


def test_on_a_style_what_is_best_for_subjects_is_worst(styles, means):
    found = means_of(styles, "frechet")
    ordered = sorted(found, key=found.__getitem__)
    ends = [("FFN_in", "Trans_out"), ("CA_out", "FFN_in"), ("CA_c", "CA_c")]
    assert [ordered[0], *ordered[-2:]] == ends
    assert [round(found[pair], 1) for pair in ends] == [75.2, 110.4, 118.7]
    pairs = list(means)

    def agreement(one, other):
        return spearmanr([one[pair] for pair in pairs], [other[pair] for pair in pairs]).statistic

    assert agreement(means, {pair: -value for pair, value in found.items()}) == pytest.approx(-0.30, abs=0.005)
    assert agreement(found, means_of(styles, "kid")) == pytest.approx(0.95, abs=0.005)
    losses = means_of(styles, "validation_loss")
    by_loss = sorted(losses, key=losses.__getitem__)
    assert by_loss[0] == ("FFN_in", "FFN_in")
    assert {pair[0] for pair in by_loss[-3:]} == {"CA_c", "CA_out"}


@pytest.mark.parametrize(
    ("study", "sentences"),
    [
        (
            SUBJECTS,
            [
                "input matters for clip_i (F(7, 130) = 14.8, p < 0.001)",
                "output matters for clip_i (F(4, 130) = 6.45, p < 0.001)",
                "Of the variance that is its own or chance, it explains 35 % (95 % interval 24 % to 45 %)",
                "Which input is best depends on the task (p = 0.017)",
                "it cannot be told from CA_out, FFN_out and Trans_out",
                "about 83 runs of each would be needed",
            ],
        ),
        (
            SPACE,
            [
                "activation matters for clip_i (F(3, 207) = 261, p < 0.001)",
                "output matters for clip_i (F(4, 207) = 170, p < 0.001)",
                "input matters for clip_i (F(7, 207) = 117, p < 0.001)",
                "scale matters for clip_i (F(3, 207) = 45.7, p < 0.001)",
                "relu has the highest mean clip_i (0.510, 95 % interval 0.504 to 0.516), clearly better than sigmoid",
                "Single runs scatter by 0.00973",
            ],
        ),
        (
            FINETUNING,
            [
                "input matters for frechet (F(7, 38) = 7.47, p < 0.001)",
                "That output matters for frechet was not shown (F(4, 38) = 2.99, p = 0.061)",
                "clearly better than CA_c / CA_c, CA_out / FFN_in, CA_out / Trans_out and Res_in / Res_in;",
                "frechet_infinity is missing in 60 of 60 results",
            ],
        ),
    ],
)
def test_the_report_comes_out_of_the_records_as_it_is_committed(study, sentences, tmp_path):
    said = report_as_committed(study, load_table(study), tmp_path)
    for sentence in sentences:
        assert sentence in said
