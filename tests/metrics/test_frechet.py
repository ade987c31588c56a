"""Frechet distance: closed forms of Gaussians, and the two ways of computing it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import DataError
from inlay.metrics.frechet import frechet, frechet_distance, infinity
from inlay.metrics.intervals import jackknife
from inlay.metrics.measure import difference
from inlay.metrics.reference import summarise
from tests.metrics.sets import normal, of


def exactly(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Return samples whose mean and covariance are the given ones to rounding."""
    draw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    draw -= draw.mean(0)
    white = draw @ np.linalg.inv(np.linalg.cholesky(np.cov(draw, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_commuting_covariances_have_the_closed_form():
    # |m|^2 + sum (s1 - s2)^2 = 9 + 16 + (1 - 3)^2 + (2 - 2)^2 + (5 - 1)^2
    one = exactly(np.array([3.0, 0.0, 4.0]), np.diag([1.0, 4.0, 25.0]), 50)
    two = exactly(np.zeros(3), np.diag([9.0, 4.0, 1.0]), 80, seed=1)
    assert frechet_distance(one, two) == pytest.approx(45.0, rel=1e-10)


def test_rotated_covariances_agree_with_the_matrix_root_of_two_by_two():
    # tr(M^(1/2)) = sqrt(tr M + 2 sqrt(det M)) for a 2 x 2 matrix M with real positive eigenvalues.
    first, second = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.3], [-0.3, 3.0]])
    product = first @ second
    expected = np.trace(first + second) - 2 * np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    one, two = exactly(np.zeros(2), first, 40), exactly(np.zeros(2), second, 40, seed=1)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)


def test_equal_sets_are_at_distance_zero_and_order_does_not_matter():
    draw = np.random.default_rng(0)
    one, two = draw.normal(size=(300, 12)), draw.normal(size=(200, 12)) * 2 + 1
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(one, two) == pytest.approx(frechet_distance(two, one), rel=1e-10)


def test_few_rows_give_what_the_full_covariance_gives():
    draw = np.random.default_rng(0)
    one, two = draw.normal(size=(20, 32)), draw.normal(size=(40, 32)) @ draw.normal(size=(32, 32))
    covariances = [np.cov(rows, rowvar=False) for rows in (one, two)]
    values = np.linalg.eigvals(covariances[0] @ covariances[1]).real
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1])
    expected -= 2 * np.sqrt(np.maximum(values, 0.0)).sum()
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-5)


def test_float32_features_are_computed_in_float64():
    draw = np.random.default_rng(0)
    one = (draw.normal(size=(500, 8)) + 1000).astype(np.float32)
    assert frechet_distance(one, one.astype(np.float64)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "N >= 2"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 and of 4"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "finite"),
    ],
)
def test_unfit_features_are_refused(one, two, words):
    with pytest.raises(DataError, match=words):
        frechet_distance(one, two)


@pytest.mark.parametrize(("count", "others"), [(300, 200), (20, 200), (20, 8), (300, 8)])
def test_statistics_give_what_the_features_give_at_any_rank(count, others):
    one, two = normal(count, width=12), normal(others, width=12, seed=1, shift=0.5)
    found = frechet(one, summarise(two))
    assert found.value == pytest.approx(frechet_distance(one.values, two.values), rel=1e-6)
    long = jackknife(lambda mask: frechet_distance(one.values[mask], two.values), one.groups)
    assert found.jackknife is not None
    assert found.jackknife.left_out == pytest.approx(long.left_out, rel=1e-6)


def test_equal_sets_without_full_rank_are_at_zero():
    few = normal(9, width=40)
    assert frechet(few, summarise(few)).value == pytest.approx(0, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 40), st.floats(0.1, 10), st.floats(-5, 5))
def test_a_distance_is_symmetric_does_not_see_rotations_and_scales_squared(seed, count, scale, shift):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    one, two = normal(count, seed=seed).values, normal(25, seed=seed + 1, shift=0.5).values
    value = frechet_distance(one, two)
    assert value >= 0
    assert frechet_distance(two, one) == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert frechet_distance(one @ turn * scale + shift, two @ turn * scale + shift) == pytest.approx(
        value * scale**2, rel=1e-5, abs=1e-6
    )


def test_the_interval_covers_the_distance_expected_of_as_many_pictures():
    reference = summarise(normal(500, width=4, seed=9999))
    found = [frechet(normal(100, width=4, seed=seed, shift=0.3), reference) for seed in range(150)]
    expected = np.mean([measure.value for measure in found])
    hits = [
        measure.interval is not None and measure.interval.low <= expected <= measure.interval.high for measure in found
    ]
    assert 0.87 <= np.mean(hits) <= 0.99


def test_extrapolation_covers_the_distance_that_infinitely_many_would_have():
    reference = summarise(normal(500, width=4, seed=9999))
    # N(0.3, 1) in four dimensions against the reference's own Gaussian
    shift = ((reference.mean - 0.3) ** 2).sum()
    truth = shift + 4 + reference.trace - 2 * np.sqrt(np.linalg.eigvalsh(reference.covariance)).sum()
    plain, beyond, hits = [], [], 0
    for seed in range(150):
        pictures = normal(120, width=4, seed=seed, shift=0.3)
        plain.append(frechet(pictures, reference).value)
        found = infinity(pictures, reference)
        assert found.interval is not None
        beyond.append(found.value)
        hits += found.interval.low <= truth <= found.interval.high
    error = np.std(beyond) / np.sqrt(150)
    assert np.mean(plain) - truth > 5 * error
    assert abs(np.mean(beyond) - truth) < 4 * error
    assert 0.87 <= hits / 150 <= 0.99


def test_notes_say_when_pictures_are_too_few():
    reference = summarise(normal(400, width=20, seed=1))
    assert "20 pictures do not determine a covariance of 20 features" in frechet(normal(20, width=20), reference).note
    assert "compare it with figures of equally many" in frechet(normal(200, width=20), reference).note
    assert frechet(normal(200, width=20, shift=3), reference).note == ""


def test_names_extrapolation_and_pairs_of_figures():
    inception = [normal(30, width=2, seed=seed, extractor="inception") for seed in range(2)]
    assert frechet(inception[0], summarise(inception[1])).metric == "FID"
    assert infinity(inception[0], summarise(inception[1])).metric == "FID-infinity"
    assert frechet(normal(30, width=2), summarise(normal(30, width=2))).metric == "FD-tower"
    with pytest.raises(DataError, match="at least 24 are needed"):
        infinity(normal(23, width=2), summarise(normal(30, width=2)))
    with pytest.raises(DataError, match="same extractor"):
        frechet(normal(30, width=2), summarise(inception[0]))
    with pytest.raises(DataError, match="at least two pictures"):
        frechet(of(np.ones((1, 2))), summarise(normal(30, width=2)))


def test_a_paired_difference_of_distances_sees_a_small_change():
    reference = summarise(normal(500, seed=9))
    rows = normal(200).values
    wider = difference(
        frechet(of(rows * 1.1, pairing="noise 0"), reference), frechet(of(rows, pairing="noise 0"), reference)
    )
    alone = difference(frechet(of(rows * 1.1), reference), frechet(of(rows), reference))
    assert wider.paired
    assert wider.interval is not None
    assert alone.interval is not None
    assert wider.interval.high - wider.interval.low < alone.interval.high - alone.interval.low
