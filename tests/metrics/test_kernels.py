"""Kernel distances: the definition, what a Gaussian has in closed form, unbiasedness, the permutation test."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import DataError
from inlay.metrics import kernels
from inlay.metrics.intervals import jackknife
from inlay.metrics.kernels import cmmd, discrepancy, gaussian, kid, kid_subsets, polynomial, same_distribution
from tests.metrics.sets import normal, of


def by_definition(first: np.ndarray, second: np.ndarray, kernel) -> float:
    within = [
        np.mean([kernel(a[None], b[None])[0, 0] for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j])
        for rows in (first, second)
    ]
    across = np.mean([kernel(a[None], b[None])[0, 0] for a in first for b in second])
    return float(within[0] + within[1] - 2 * across)


@pytest.mark.parametrize("kernel", [polynomial, gaussian])
def test_the_discrepancy_is_its_definition(kernel):
    one, two = normal(7, seed=1).double, normal(5, seed=2, shift=0.5).double
    assert discrepancy(one, two, kernel) == pytest.approx(by_definition(one, two, kernel), rel=1e-9)


@pytest.mark.parametrize("block", [2048, 7])
@pytest.mark.parametrize("clusters", [None, [number // 3 for number in range(30)]])
def test_leaving_out_from_block_sums_is_computing_again(monkeypatch, block, clusters):
    monkeypatch.setattr(kernels, "BLOCK", block)
    one, two = normal(30, clusters=clusters), normal(20, seed=1, shift=0.3)
    long = jackknife(lambda mask: discrepancy(one.double[mask], two.double, polynomial), one.groups)
    short = kid(one, two).jackknife
    assert short is not None
    assert short.value == pytest.approx(long.value)
    assert short.left_out == pytest.approx(long.left_out)
    assert short.sizes == long.sizes


def test_the_polynomial_kernel_between_shifted_normals_has_a_closed_form():
    # In one dimension (x y + 1)^3 = sum of binomial(3, p) x^p y^p, so the squared discrepancy is the sum over p of
    # binomial(3, p) (E x^p - E y^p)^2. For N(1, 1) and N(0, 1): moments 1, 2, 4 and 0, 1, 0: 3 * 1 + 3 * 1 + 16 = 22.
    draw = np.random.default_rng(0)
    values = [discrepancy(draw.normal(1, 1, (150, 1)), draw.normal(0, 1, (150, 1)), polynomial) for _ in range(60)]
    assert np.mean(values) == pytest.approx(22, abs=4 * np.std(values) / np.sqrt(60))


def test_equal_distributions_are_at_zero_on_average_even_for_few_pictures():
    values = [kid(normal(6, seed=2 * s), normal(5, seed=2 * s + 1)).value for s in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)


def test_intervals_cover_the_distance_to_a_kept_reference():
    reference = normal(60, width=3, seed=9)
    truth = kid(normal(4000, width=3, seed=8, shift=0.5), reference).value
    intervals = [kid(normal(60, width=3, seed=s, shift=0.5), reference).interval for s in range(200)]
    hits = sum(found is not None and found.low <= truth <= found.high for found in intervals)
    assert 0.89 <= hits / 200 <= 0.99


def test_cmmd_ignores_lengths_and_differs_from_the_biased_estimate_as_derived():
    one, two = normal(30), normal(20, seed=1, shift=1)
    found = cmmd(one, two).value
    assert cmmd(of(one.values * np.arange(1, 31)[:, None]), two).value == pytest.approx(found)
    likeness = [gaussian(a, b) for a, b in ((one.unit, one.unit), (two.unit, two.unit), (one.unit, two.unit))]
    biased = 1000 * (likeness[0].mean() + likeness[1].mean() - 2 * likeness[2].mean())
    off_diagonal = [(k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in likeness[:2]]
    added = 1000 * ((1 - off_diagonal[0]) / 30 + (1 - off_diagonal[1]) / 20)
    assert found == pytest.approx(biased - added, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 1000), st.floats(-2, 2))
def test_order_and_permutation_do_not_matter(count, others, seed, shift):
    one, two = normal(count, seed=seed), normal(others, seed=seed + 1, shift=shift)
    value = kid(one, two).value
    assert kid(two, one).value == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert kid(of(one.values[::-1]), two).value == pytest.approx(value, rel=1e-9, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_rotations_do_not_matter(seed):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    one, two = normal(12, seed=seed), normal(9, seed=seed + 1, shift=0.5)
    assert kid(of(one.values @ turn), of(two.values @ turn)).value == pytest.approx(kid(one, two).value, rel=1e-8)
    assert cmmd(of(one.values @ turn), of(two.values @ turn)).value == pytest.approx(cmmd(one, two).value, rel=1e-8)


def test_names_are_kept_for_their_extractors():
    one, two = (normal(5, seed=s, extractor="inception") for s in range(2))
    assert kid(one, two).metric == "KID"
    assert kid(normal(5), normal(5, seed=1)).metric == "KD-tower"
    assert cmmd(normal(5), normal(5, seed=1)).metric == "CMMD-tower"
    large = [normal(5, seed=s, extractor=kernels.CMMD_EXTRACTOR) for s in range(2)]
    assert cmmd(*large).metric == "CMMD"


def test_subsets_have_the_value_of_the_whole_on_average():
    one, two = normal(80), normal(70, seed=1, shift=0.5)
    mean, deviation = kid_subsets(one, two, subsets=300, size=25)
    assert mean == pytest.approx(kid(one, two).value, abs=4 * deviation / np.sqrt(300))
    assert kid_subsets(one, two, subsets=3, size=25) == kid_subsets(one, two, subsets=3, size=25)
    assert kid_subsets(one, two, subsets=1, size=1000)[0] == pytest.approx(
        discrepancy(one.double[:70], two.double, polynomial), rel=0.5
    )


def test_the_permutation_test_holds_its_level_and_sees_a_shift():
    small = [same_distribution(normal(8, seed=2 * s), normal(8, seed=2 * s + 1), permutations=99) for s in range(200)]
    assert 0.02 <= np.mean(np.array(small) <= 0.1) <= 0.18
    assert same_distribution(normal(20), normal(20, seed=1, shift=1)) < 0.01
    assert same_distribution(normal(10), normal(10), permutations=99) > 0.5


def test_two_pictures_are_needed_and_few_have_no_interval():
    with pytest.raises(DataError, match="given: 1 and 5"):
        kid(normal(1), normal(5))
    two = kid(normal(2), normal(5, seed=1))
    assert two.interval is None
    assert "too few" in two.note
    assert kid(replace(normal(6), clusters=tuple("aaabbb")), normal(5, seed=1)).interval is None
