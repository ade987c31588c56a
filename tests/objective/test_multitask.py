import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.objective.multitask import (
    GAP,
    SOLVERS,
    bin_of,
    bin_shares,
    frank_wolfe,
    objective_value,
    regularised,
    unconstrained_gradient_descent,
)

every_solver = pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS.keys())


def gram_of(bins, numbers, seed, spread=1.0):
    """Return M of gradients that have a part in common and differ in size."""
    random = np.random.default_rng(seed)
    gradients = random.normal(size=numbers) + random.normal(size=(bins, numbers))
    gradients *= np.exp(spread * random.normal(size=(bins, 1)))
    return gradients @ gradients.T


@pytest.mark.parametrize("regularisation", [0.001, 0.05, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_both_algorithms_reach_the_same_objective(seed, regularisation):
    gram = gram_of(20, 300, seed)
    values = [objective_value(solve(gram, regularisation), gram, regularisation) for solve in SOLVERS.values()]
    assert values[0] == pytest.approx(values[1], rel=0.01)
    equal = objective_value(np.ones(20), gram, regularisation)
    assert max(values) < equal


@settings(deadline=None, max_examples=25)
@given(bins=st.integers(2, 12), seed=st.integers(0, 10**6), regularisation=st.floats(0.01, 10))
def test_frank_wolfe_meets_the_conditions_of_optimality(bins, seed, regularisation):
    """No bin's slope lies below the weighted mean of the slopes, up to the gap: then no other weights are better."""
    gram = gram_of(bins, 30, seed)
    weights = frank_wolfe(gram, regularisation)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    slopes = regularised(gram, regularisation) @ weights
    value = weights @ slopes
    assert slopes.min() >= value * (1 - 20 * GAP)


@every_solver
def test_two_bins_have_a_closed_form(solve):
    """The shortest point on the segment between two gradients (Sener and Koltun 2018, equation 4)."""
    gram = np.array([[4.0, 1.0], [1.0, 1.5]])
    matrix = regularised(gram, 0.1)
    expected = (matrix[1, 1] - matrix[0, 1]) / (matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1])
    assert solve(gram, 0.1) == pytest.approx([expected, 1 - expected], abs=2e-3)


@every_solver
def test_a_step_against_the_weighted_gradient_raises_no_bins_loss(solve):
    gram = gram_of(8, 200, 5)
    products = gram @ solve(gram, 1e-6)  # of each bin's gradient with the common one
    assert (products > 0).all()


@every_solver
def test_units_do_not_matter_and_much_regularisation_makes_weights_equal(solve):
    gram = gram_of(6, 40, 1)
    weights = solve(gram, 0.05)
    np.testing.assert_allclose(solve(gram * 1e-9, 0.05), weights, atol=1e-6)
    assert weights.max() > 1.5 / 6
    np.testing.assert_allclose(solve(gram, 1e5), np.full(6, 1 / 6), atol=1e-3)


def test_the_objective_is_that_of_the_publication():
    gradients = np.random.default_rng(0).normal(size=(4, 7))
    gram = gradients @ gradients.T
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    mean = (gradients**2).sum() / 4
    by_hand = ((weights @ gradients) ** 2).sum() + 0.3 * mean * (weights**2).sum()
    assert objective_value(weights, gram, 0.3) == pytest.approx(by_hand / mean)
    assert objective_value(7 * weights, gram, 0.3) == pytest.approx(by_hand / mean)


def test_descent_is_that_of_torchs_adam():
    gram = gram_of(5, 20, 3)
    matrix = torch.from_numpy(regularised(gram, 0.1) * 5 / np.trace(gram))
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05, eps=1e-12)
    for _ in range(4000):
        optimizer.zero_grad()
        weights = logits.softmax(0)
        (weights @ matrix @ weights).backward()
        optimizer.step()
    np.testing.assert_allclose(unconstrained_gradient_descent(gram, 0.1), logits.softmax(0).detach().numpy(), atol=1e-6)


@given(timesteps=st.integers(2, 1200), bins=st.integers(2, 60))
def test_bins_are_equal_parts_and_shares_are_means(timesteps, bins):
    bins = min(bins, timesteps)
    index = bin_of(timesteps, bins)
    sizes = index.bincount(minlength=bins)
    assert len(sizes) == bins
    assert int(sizes.max() - sizes.min()) <= 1
    assert bool((index.diff() >= 0).all())
    np.testing.assert_allclose(bin_shares(torch.ones(timesteps), bins), np.full(bins, 1 / bins))
    only = torch.zeros(timesteps).index_fill_(0, (index == 1).nonzero().flatten(), 3.0)
    assert bin_shares(only, bins).tolist() == pytest.approx([float(number == 1) for number in range(bins)])
