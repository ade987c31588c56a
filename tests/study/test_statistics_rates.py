"""Rates over simulated studies: false alarms where nothing is, intervals that hold what they promise to."""

import numpy as np
import pytest

from inlay.study.statistics.anova import anova, one_way
from inlay.study.statistics.comparisons import games_howell, tukey
from inlay.study.statistics.mixed import across
from inlay.study.statistics.permutation import freedman_lane
from inlay.study.statistics.ranks import aligned_ranks
from inlay.study.statistics.sample import make_sample
from tests.study.simulate import grid, normal, without

A, B, AB = ("a",), ("b",), ("a", "b")


def rate(found) -> float:
    return float(np.mean(list(found)))


def within(share: float, nominal: float, trials: int) -> bool:
    """Whether a share lies within 3.5 standard errors of what it should be."""
    return abs(share - nominal) < 3.5 * np.sqrt(nominal * (1 - nominal) / trials)


def test_interval_of_the_explained_share_covers_and_omega_is_less_biased_than_eta():
    trials, effects = 400, {"a0": -0.6, "a2": 0.6}
    truth = np.var([-0.6, 0, 0.6]) / (np.var([-0.6, 0, 0.6]) + 1)
    generator = np.random.default_rng(0)
    found = [one_way(normal(grid([3], 8), generator, effects), "a").effect for _ in range(trials)]
    assert within(rate(effect.share.low <= truth <= effect.share.high for effect in found), 0.95, trials)
    eta = np.mean([effect.eta_squared for effect in found])
    omega = np.mean([effect.omega_squared for effect in found])
    assert abs(omega - truth) < 0.02 < eta - truth


def test_false_alarms_of_an_unbalanced_table_with_an_empty_cell():
    trials = 400
    generator = np.random.default_rng(1)
    design = normal(grid([3, 3], 3), generator)
    dropped = [0, *np.flatnonzero((design.codes["a"] == 2) & (design.codes["b"] == 1)), 15]
    design = without(design, dropped)
    found = [anova(design.with_response(generator.standard_normal(len(design)))).tests for _ in range(trials)]
    for place in range(3):
        assert within(rate(tests[place].p < 0.05 for tests in found), 0.05, trials)


@pytest.mark.slow
def test_tukey_s_intervals_hold_together():
    trials = 400
    generator = np.random.default_rng(2)
    held = []
    for _ in range(trials):
        sample = normal(grid([4, 3], 2), generator, {"a0": 1.0, "b1": 2.0})
        held.append(
            all(
                found.bounds.low <= (found.first == "a0") - (found.second == "a0") <= found.bounds.high
                for found in tukey(sample, [A, B], "a")
            )
        )
    assert within(rate(held), 0.95, trials)


def test_false_alarms_of_permutations_on_numbers_far_from_a_bell():
    trials = 200
    generator = np.random.default_rng(3)
    design = normal(grid([3, 2], 4), generator, {"b1": 3.0})
    p = []
    for _ in range(trials):
        skewed = design.with_response(generator.exponential(size=24) ** 2 + 3.0 * design.codes["b"])
        p.append(freedman_lane(skewed, [A, B], A, draws=199))
    assert within(rate(value <= 0.05 for value in p), 0.05, trials)


@pytest.mark.slow
def test_coverage_in_larger_simulations():
    trials, effects = 1500, {"a0": -0.4, "a2": 0.4, "b0": 0.5}
    generator = np.random.default_rng(4)
    variance = np.var([-0.4, 0, 0.4])
    truth, whole = variance / (variance + 1), variance / (variance + np.var([0.5, 0]) + 1)
    found = [anova(normal(grid([3, 2], 5), generator, effects)).test("a").effect for _ in range(trials)]
    assert within(rate(effect.share.low <= truth <= effect.share.high for effect in found), 0.95, trials)
    # Counting the other factor as error makes the second interval hold at least as often as promised.
    assert rate(effect.total_share.low <= whole <= effect.total_share.high for effect in found) > 0.94


@pytest.mark.slow
def test_false_alarms_in_larger_simulations():
    trials = 800
    generator = np.random.default_rng(5)
    design = without(normal(grid([3, 2], 6), generator), [0, 1, 9])
    aligned, shuffled, turned = [], [], []
    for _ in range(trials):
        numbers = generator.standard_t(2, len(design)) + 2.0 * design.codes["b"]
        sample = design.with_response(numbers)
        aligned.append([aligned_ranks(sample, [A, B, AB], term).p < 0.05 for term in (A, AB)])
        shuffled.append(freedman_lane(sample, [A, B, AB], A, draws=199) <= 0.05)
    rates = np.mean(aligned, axis=0)
    assert (rates < 0.07).all()
    assert within(rate(shuffled), 0.05, trials)
    factors = grid([3, 5], 2)
    for _ in range(trials):
        turns = generator.standard_normal((3, 5))
        cells = [turns[int(a[1]), int(b[1])] for a, b in zip(*factors.values(), strict=True)]
        sample = make_sample(np.array(cells) + 0.3 * generator.standard_normal(30), factors)
        turned.append(across(sample, "a", "b").p < 0.05)
    assert within(rate(turned), 0.05, trials)


@pytest.mark.slow
def test_games_howell_holds_together_where_scatter_differs():
    trials = 250
    generator = np.random.default_rng(6)
    factors = grid([4], 8)
    scale = np.repeat([0.3, 1.0, 2.0, 4.0], 8)
    held, tukey_held = [], []
    for _ in range(trials):
        sample = make_sample(scale * generator.standard_normal(32), factors)
        held.append(all(found.bounds.low <= 0 <= found.bounds.high for found in games_howell(sample, "a")))
        tukey_held.append(all(found.bounds.low <= 0 <= found.bounds.high for found in tukey(sample, [A], "a")))
    assert within(rate(held), 0.95, trials)
    assert rate(held) > rate(tukey_held)
