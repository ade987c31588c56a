import json

import pytest

from inlay.errors import ConfigError
from inlay.run.compare.comparison import compare
from inlay.run.compare.figures import columns
from inlay.run.compare.gather import gather
from inlay.run.compare.quality import pareto_front, smoothed, thinned


def column(places, name="clip_i"):
    return next(column for column in columns(gather(places)[0]) if column.name == name)


OTHER = (1, 1, -1, -1)
"""Moves of the left-out values that are uncorrelated with those of the best run."""


def test_a_run_is_worse_only_where_the_difference_is_no_chance(make_run, measured):
    places = [
        make_run("best", record=measured(0.9, 0.85, 0.95)),
        make_run("near", record=measured(0.82, 0.74, 0.90, signs=OTHER)),  # 0.08 +- sqrt(0.05^2 + 0.08^2)
        make_run("far", record=measured(0.8, 0.72, 0.88, signs=OTHER)),  # 0.10 +- the same
        make_run("none"),
    ]
    found = column(places)
    assert found.comparable
    assert found.title == "CLIP-I"
    assert found.best == {0, 1}
    assert found.figures[0].n == "40 against 5"
    assert found.figures[3].value is None
    assert found.figures[3].reason == "not measured"


def test_pairs_part_what_overlapping_intervals_do_not(make_run, measured):
    places = [
        make_run("best", record=measured(0.9, 0.8, 1.0)),
        make_run("other", record=measured(0.85, 0.76, 0.94)),  # what chance does to one, it does to the other
    ]
    assert column(places).best == {0}


def test_where_lower_is_better_the_lowest_is_best(make_run, measured):
    signs = {3: OTHER, 1: (-1, 1, -1, 1), 2: (1, -1, -1, 1)}
    places = [
        make_run(f"run{k}", record=measured(k, k - 0.1, k + 0.1, name="kid", better="lower", signs=signs[k]))
        for k in (3, 1, 2)
    ]
    assert column(places, "kid").best == {1}


def test_a_later_evaluation_takes_the_place_of_earlier_figures(make_run, measured):
    run = make_run("one", record=measured(0.9, 0.85, 0.95))
    later = measured(0.7, 0.6, 0.8)
    evaluation = {"metrics": {"clip_i": 0.7}, "metric_details": later["metric_details"], "missing": {}, "symptoms": []}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    assert column([run]).figures[0].interval == (0.6, 0.8)
    assert column([run], "validation_loss").figures[0].value == 0.47
    (run / "evaluation.json").write_text("{")
    other = make_run("two")
    assert [run.name for run in gather([run, other])[0]] == ["two"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 20}, "the number of pictures"),
        ({"extractor": "dino"}, "the extractor"),
        ({"references": 6}, "the number of references"),
        ({"pairing": "other"}, "prompts or noise"),
    ],
)
def test_figures_that_do_not_belong_together_are_never_ranked(make_run, measured, change, reason):
    places = [
        make_run("one", record=measured(0.9, 0.85, 0.95)),
        make_run("two", record=measured(0.1, 0.05, 0.15, **change)),
    ]
    found = column(places)
    assert not found.comparable
    assert found.best == frozenset()
    assert reason in found.note
    with pytest.raises(ConfigError, match=reason):
        compare(places, "clip_i")
    assert compare(places).quality.name == "validation_loss"


def test_without_intervals_nothing_is_marked(make_run, measured):
    places = [make_run("one", record=measured(0.9)), make_run("two", record=measured(0.1, 0.05, 0.15))]
    assert column(places).comparable
    assert column(places).best == frozenset()


def test_losses_of_other_pictures_or_another_noise_are_not_comparable(make_run):
    one = make_run("one")
    assert not column([one, make_run("two", record={"data__hash": "e" * 64})], "validation_loss").comparable
    assert not column([one, make_run("three", config={"seed": 1})], "validation_loss").comparable
    assert column([one, make_run("four", {"name": "full"})], "validation_loss").comparable


def test_a_metric_to_draw_must_be_one(make_run):
    places = [make_run("one"), make_run("two")]
    with pytest.raises(ConfigError, match="no run has this metric; allowed: validation_loss"):
        compare(places, "beauty")
    with pytest.raises(ConfigError, match="it is not known which values are better"):
        compare(places, "smoothed_loss")


def test_time_to_quality_is_when_the_level_that_all_reach_was_first_reached(make_run):
    places = [
        make_run("fast", held_out=[0.40, 0.30, 0.35, 0.5], seconds=1.0),
        make_run("slow", held_out=[0.50, 0.45, 0.42, 0.33], seconds=2.0),
        make_run("stopped", held_out=[0.50, 0.49], steps=11, status="stopped"),
    ]
    reached = compare(places).reached
    assert reached.level == 0.33  # the slow run's lowest; a stopped run does not set it
    assert reached.seconds == (10.0, 40.0, None)


def test_time_to_quality_needs_held_out_pictures(make_run):
    reached = compare([make_run("one", held_out=[]), make_run("two", held_out=[])]).reached
    assert reached.level is None
    assert reached.reason == "no run held pictures out (data.validation)"


@pytest.mark.parametrize(
    ("better", "front"),
    [("higher", [0, 1, 4]), ("lower", [0, 3])],
)
def test_the_front_holds_what_no_other_point_beats(better, front):
    points = {0: (1.0, 0.5), 1: (2.0, 0.6), 2: (3.0, 0.55), 3: (2.0, 0.4), 4: (9.0, 0.9), 5: (9.5, 0.9)}
    assert pareto_front(points, better) == front


def test_points_that_are_equal_are_on_the_front_together():
    assert pareto_front({0: (1.0, 0.5), 1: (1.0, 0.5)}, "higher") == [0, 1]


def test_a_stopped_run_is_drawn_but_is_never_on_the_front(make_run):
    places = [
        make_run("done", held_out=[0.4, 0.4, 0.4, 0.4]),
        make_run("stopped", held_out=[0.1], steps=6, status="stopped"),
        make_run("other", held_out=[0.3, 0.3, 0.3, 0.3], seconds=0.6),
    ]
    points, front = compare(places).against("training_seconds")
    assert points == {0: (10.0, 0.4), 1: (3.0, 0.1), 2: (12.0, 0.3)}
    assert front == [0, 2]


def test_the_running_mean_looks_back_only():
    points = [(step, float(step), float(step)) for step in range(1, 7)]
    assert smoothed(points, 4) == [(2, 2, 1.5), (3, 3, 2), (4, 4, 2.5), (5, 5, 3.5), (6, 6, 4.5)]
    assert smoothed(points[:2], 4) == [(1, 1, 1), (2, 2, 1.5)]  # a run that stopped early is not left out


def test_long_curves_are_thinned_and_keep_their_ends():
    points = [(step, float(step), 0.0) for step in range(100_000)]
    found = thinned(points)
    assert len(found) == 400
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert thinned(points[:5]) == points[:5]


def test_details_of_another_version_are_shown_and_not_ranked(make_run, measured):
    places = []
    for name, value in (("one", 0.9), ("two", 0.5)):
        entries = measured(value, value - 0.05, value + 0.05)
        del entries["metric_details"]["clip_i"]["note"]
        places.append(make_run(name, record=entries))
    found = column(places)
    assert [figure.value for figure in found.figures] == [0.9, 0.5]
    assert found.best == frozenset()
