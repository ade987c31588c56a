"""Precision, recall, density, coverage: their definitions, sets with known answers, leaving out, intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import DataError
from inlay.metrics import manifold
from inlay.metrics.intervals import jackknife
from inlay.metrics.manifold import density_coverage, expected_coverage, precision_recall
from tests.metrics.sets import normal, of


def by_definition(generated: np.ndarray, reference: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def radii(rows: np.ndarray) -> np.ndarray:
        return np.sort(np.linalg.norm(rows[:, None] - rows[None], axis=2), axis=1)[:, k]  # the 0th is the row itself

    between = np.linalg.norm(reference[:, None] - generated[None], axis=2)
    real, fake = radii(reference), radii(generated)
    inside = between <= real[:, None]
    precision, recall = inside.any(0).mean(), (between <= fake[None]).any(1).mean()
    return precision, recall, inside.sum(0).mean() / k, inside.any(1).mean()


@pytest.mark.parametrize("block", [1024, 7])
def test_all_four_are_their_definitions(monkeypatch, block):
    monkeypatch.setattr(manifold, "BLOCK", block)
    one, two = normal(50, width=3), normal(40, width=3, seed=1, shift=0.8)
    found = [measure.value for measure in (*precision_recall(one, two, 4), *density_coverage(one, two, 4))]
    assert found == pytest.approx(by_definition(one.double, two.double, 4))


@pytest.mark.parametrize("clusters", [None, [number // 10 for number in range(60)]])
def test_leaving_groups_out_is_computing_again(clusters):
    # Clusters that lie together empty the short list of neighbours, so the whole row is searched.
    rows = normal(60, width=3).double + (0 if clusters is None else 50 * np.arange(60)[:, None] // 10)
    one, two = of(rows, clusters), of(rows[::2] + 0.4)
    measures = (*precision_recall(one, two), *density_coverage(one, two, 3))
    for place, measure in enumerate(measures):
        long = jackknife(lambda mask, at=place: float(by_definition(rows[mask], two.double, 3)[at]), one.groups)
        assert measure.jackknife is not None
        assert measure.jackknife.left_out == pytest.approx(long.left_out), measure.metric


def test_sets_far_apart_share_nothing_and_equal_sets_everything():
    one = normal(40)
    for measure in (*precision_recall(one, normal(40, shift=100)), *density_coverage(one, normal(40, shift=100))):
        assert measure.value == 0
    precision, recall = precision_recall(one, one)
    assert (precision.value, recall.value, density_coverage(one, one)[1].value) == (1, 1, 1)


def test_a_model_that_draws_one_thing_has_precision_without_recall():
    reference = normal(200, width=2)
    centre = of(normal(200, width=2, seed=1).values * 0.05)
    precision, recall = precision_recall(centre, reference)
    assert precision.value > 0.95
    assert recall.value < 0.1


def test_coverage_of_a_perfect_model_is_as_derived():
    values = [density_coverage(normal(60, seed=2 * s), normal(50, seed=2 * s + 1))[1].value for s in range(60)]
    assert np.mean(values) == pytest.approx(expected_coverage(60, 50, 5), abs=4 * np.std(values) / np.sqrt(60))


def test_shares_of_one_have_an_interval_that_says_how_many_pictures_stand_behind():
    precision, recall = precision_recall(normal(30), normal(30))
    assert precision.interval is not None
    assert precision.interval.high == 1
    assert precision.interval.low == pytest.approx(0.8865, abs=1e-4)  # Wilson: n / (n + z^2) = 30 / 33.84
    assert recall.value == 1


def test_precision_covers_as_often_as_it_says():
    reference = normal(80, width=3, seed=999)
    truth = precision_recall(normal(4000, width=3, seed=998, shift=0.5), reference)[0].value
    hits = 0
    for seed in range(100):
        interval = precision_recall(normal(60, width=3, seed=seed, shift=0.5), reference)[0].interval
        assert interval is not None
        hits += interval.low <= truth <= interval.high
    assert 0.87 <= hits / 100 <= 1.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_scale_shift_and_rotation_do_not_matter(seed, scale, shift):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    one, two = normal(20, seed=seed), normal(15, seed=seed + 1, shift=0.3)
    moved = [of(item.values @ turn * scale + shift) for item in (one, two)]
    for before, after in zip(density_coverage(one, two), density_coverage(*moved), strict=True):
        assert after.value == pytest.approx(before.value)


def test_pictures_that_repeat_have_a_ball_that_holds_their_like():
    rows = np.repeat(np.array([[0.0, 0.0], [5.0, 5.0]]), 6, axis=0)
    assert density_coverage(of(rows), of(rows), 3)[1].value == 1
    assert density_coverage(of(rows + 1), of(rows), 3)[1].value == 0


def test_too_few_pictures_are_refused_with_what_to_use():
    with pytest.raises(DataError, match="kernel distance"):
        precision_recall(normal(3), normal(30))
    with pytest.raises(DataError, match="15 are left out at once"):
        precision_recall(normal(18, clusters="a" * 15 + "bcd"), normal(30))
