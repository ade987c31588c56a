import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import ArtifactError
from inlay.objective.importance import LossHistory
from inlay.objective.timesteps import LossSecondMoment
from inlay.randomness import stream


def filled(timesteps=20, seed=0, **options):
    """Return a warm history, and the losses of each of its bins, oldest first."""
    history = LossHistory(LossSecondMoment(**{"history": 3, "bins": 5, **options}), timesteps)
    random = np.random.default_rng(seed)
    losses = [[] for _ in range(timesteps)]
    for _ in range(4):
        t = random.permutation(timesteps).tolist()
        values = np.exp(random.normal(size=timesteps)).astype(np.float32).tolist()
        history.observe(t, values)
        for timestep, value in zip(t, values, strict=True):
            losses[history.bin_of[timestep]].append(value)
    return history, [bin_losses for bin_losses in losses if bin_losses]


def test_nothing_is_preferred_before_every_bin_has_its_losses():
    history = LossHistory(LossSecondMoment(history=2, bins=2), 4)
    history.observe([0, 1, 2], [9.0, 9.0, 1.0])
    assert not history.warm
    assert history.probabilities().tolist() == [0.25] * 4
    history.observe([3], [1.0])
    assert history.warm
    assert history.probabilities().tolist() == pytest.approx([0.4498, 0.4498, 0.0502, 0.0502])


def test_probabilities_are_those_of_the_publication():
    """With a bin a timestep: sqrt(E[L^2]) over the latest losses, mixed with a little of the uniform distribution."""
    history, losses = filled(bins=20, timesteps=20)
    rms = np.array([np.sqrt(np.mean(np.square(values[-3:]))) for values in losses])
    np.testing.assert_allclose(history.probabilities(), 0.999 * rms / rms.sum() + 0.001 / 20, rtol=1e-6)


def test_timesteps_of_a_bin_share_their_losses():
    history, losses = filled()
    rms = np.array([np.sqrt(np.mean(np.square(values[-3:]))) for values in losses])[history.bin_of]
    np.testing.assert_allclose(history.probabilities(), 0.999 * rms / rms.sum() + 0.001 / 20, rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), timesteps=st.integers(5, 40))
def test_the_expected_loss_stays_that_of_uniform_draws(seed, timesteps):
    history, _ = filled(timesteps=timesteps, seed=seed)
    losses = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=timesteps))
    expected = (history.probabilities() * history.factors().double() * losses).sum()
    assert float(expected) == pytest.approx(float(losses.mean()), rel=1e-5, abs=1e-7)


def test_the_loss_fluctuates_less():
    scale = torch.linspace(0.05, 3, 20, dtype=torch.float64)  # the loss at each timestep
    history = LossHistory(LossSecondMoment(history=1, bins=20), 20)
    history.observe(range(20), scale.tolist())
    t = history.draw(stream(0, "test"), 4000)
    assert float((scale * history.factors().double())[t].std()) < 0.05 * float(scale.std())


@pytest.mark.parametrize("stratified", [False, True])
def test_draws_follow_the_probabilities(stratified):
    history, _ = filled(stratified=stratified)
    t = history.draw(stream(0, "test"), 50_000)
    torch.testing.assert_close(t.bincount() / 50_000, history.probabilities().float(), rtol=0.1, atol=0.002)
    assert torch.equal(history.draw(stream(0, "test"), 50_000), t)


def test_every_timestep_stays_possible():
    history = LossHistory(LossSecondMoment(history=1, bins=10), 10)
    history.observe(range(10), [0.0] * 9 + [1e6])
    assert float(history.probabilities().min()) == pytest.approx(1e-4)
    history.observe(range(10), [0.0] * 10)
    assert history.probabilities().tolist() == pytest.approx([0.1] * 10)


def test_a_loaded_history_goes_on_to_the_same_bits():
    history, _ = filled()
    other = LossHistory(history.settings, 20)
    other.load({name: value.clone() for name, value in history.state().items()})
    for one in (history, other):
        one.observe([3, 3, 17], [0.1, 0.2, 0.3])
    assert torch.equal(history.probabilities(), other.probabilities())


def test_the_state_is_a_copy():
    history, _ = filled()
    state = history.state()
    before = history.probabilities().clone()
    history.observe([0], [100.0])
    history.load(state)
    assert torch.equal(history.probabilities(), before)


def test_a_history_of_other_bins_is_refused():
    history, _ = filled()
    with pytest.raises(ArtifactError, match=r"shape \(5, 3\), here \(4, 3\)"):
        LossHistory(LossSecondMoment(history=3, bins=4), 20).load(history.state())
