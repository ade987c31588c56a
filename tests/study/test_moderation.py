"""Variances of few runs, drawn towards each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from inlay.study.statistics.moderation import _inverse_trigamma, moderate


def test_without_repetition_nothing_is_known():
    assert moderate([[1.0], [2.0]]) is None
    assert moderate([]) is None


def test_groups_that_scatter_alike_share_one_variance():
    groups = [[0.0, 1.0, 2.0], [5.0, 6.0, 7.1], [3.0, 4.1, 5.0], [9.0]]
    found = moderate(groups)
    assert found is not None
    pooled = sum(np.var(group) * len(group) for group in groups) / 6
    assert found[0] == pytest.approx([pooled] * 4)
    assert found[1] == [6.0] * 4


def test_of_one_group_its_own_variance_is_all_there_is():
    assert moderate([[0.0, 2.0]]) == ([2.0], [1.0])
    assert moderate([[1.0, 1.0], [2.0, 2.0], [4.0, 5.0]]) is not None  # variances of 0 have no logarithm


def test_the_prior_is_found_again():
    """Variances drawn as assumed: prior 4 with 6 degrees of freedom, each then seen through 5 runs."""
    generator = np.random.default_rng(0)
    true = 4 * 6 / generator.chisquare(6, 4000)
    runs = np.sqrt(true)[:, None] * generator.standard_normal((4000, 5))
    variances, freedom = moderate(runs.tolist()) or ([], [])
    assert freedom[0] - 4 == pytest.approx(6, rel=0.1)
    own = runs.var(axis=1, ddof=1)
    prior = (np.array(variances) * freedom[0] - 4 * own) / (freedom[0] - 4)
    assert prior == pytest.approx(4, rel=0.05)
    # Nearer to the truth than the groups' own, and than one for all.
    errors = [np.abs(np.log(found / true)).mean() for found in (np.array(variances), own, np.full(4000, own.mean()))]
    assert errors[0] < 0.8 * min(errors[1:])


@given(st.floats(-8, 8))
def test_the_inverse_of_trigamma(exponent):
    x = math.exp(exponent)
    assert _inverse_trigamma(float(special.polygamma(1, x))) == pytest.approx(x, rel=1e-3)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=8))
def test_variances_are_finite_and_freedom_is_not_made_up(groups):
    found = moderate(groups)
    total = sum(len(group) - 1 for group in groups)
    if found is None:
        assert total == 0
        return
    assert all(math.isfinite(variance) and variance >= 0 for variance in found[0])
    assert all(1 <= freedom <= total for freedom in found[1])
