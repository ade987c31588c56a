"""Frechet distance: closed forms of Gaussians, and the two ways of computing it."""

import numpy as np
import pytest

from inlay.errors import DataError
from inlay.metrics.frechet import frechet_distance


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
