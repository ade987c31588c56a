import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inlay.objective.effective import density, effective_weights
from inlay.objective.path import Path, scaled_linear_alphas_cumprod
from inlay.objective.settings import Objective
from inlay.objective.timesteps import LogitNormal, LossSecondMoment, Shifted, Uniform
from inlay.objective.weighting import UGD, MinSNR, Plain, Uncertainty

SD = Path.from_alphas_cumprod(scaled_linear_alphas_cumprod())


def of(prediction="epsilon", **options):
    return effective_weights(Objective(prediction=prediction, **options), SD)


def test_plain_and_uniform_is_one_everywhere():
    found = of()
    assert found.weights == (1.0,) * 1000
    assert (found.mean, found.effective_timesteps, found.moved, found.changes) == (1, 1000, 0, None)
    assert found.shares == pytest.approx((0.334, 0.333, 0.333))
    assert found.sentence() == "as the plain loss: every timestep counts the same"


def test_min_snr_on_stable_diffusions_schedule():
    """147 of the timesteps of an epsilon model lose weight; the mean is .917, for v it is .294."""
    found = of(weighting=MinSNR())
    weights = torch.tensor(found.weights)
    assert int((weights < 1).sum()) == 147
    assert found.mean == pytest.approx(0.917, abs=5e-4)
    lost = (1 / 1000 - weights / weights.sum()).clamp(min=0).sum().item()
    assert found.moved == pytest.approx(lost)
    assert found.effective_timesteps == pytest.approx(float(weights.sum() ** 2 / weights.square().sum()), rel=1e-6)
    assert of("v_prediction", weighting=MinSNR()).mean == pytest.approx(0.294, abs=5e-4)
    assert found.sentence().startswith("moves 7.81 %")
    assert "mean weight 0.917" in found.sentence()


def test_drawing_more_often_acts_like_a_larger_weight():
    found = of(timesteps=Shifted(shift=3.0))
    # The density of s u / (1 + (s - 1) u) at level x is s / (s - (s - 1) x)^2.
    level = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    torch.testing.assert_close(
        torch.tensor(found.weights, dtype=torch.float64), 3 / (3 - 2 * level) ** 2, rtol=0.02, atol=0
    )
    assert found.mean == pytest.approx(1)
    both = of(weighting=MinSNR(), timesteps=Shifted(shift=3.0))
    alone = of(weighting=MinSNR())
    assert both.weights == pytest.approx([a * b for a, b in zip(alone.weights, found.weights, strict=True)])


@given(mean=st.floats(-2, 2), std=st.floats(0.2, 2))
def test_densities_sum_to_one_and_are_where_the_sampler_draws(mean, std):
    sampler = LogitNormal(mean=mean, std=std)
    probabilities = density(sampler, SD)
    assert float(probabilities.sum()) == pytest.approx(1)
    # The median of the sampler halves the probability.
    half = int(sampler.quantile(torch.tensor([0.5], dtype=torch.float64), SD))
    assert float(probabilities[:half].sum()) == pytest.approx(0.5, abs=0.02)


def test_uniform_draws_are_exact():
    assert density(Uniform(), SD).tolist() == [0.001] * 1000


def test_what_changes_while_training_is_said():
    assert "ugd finds its weights while training" in of(weighting=UGD()).sentence()
    assert "uncertainty finds its weights" in of(weighting=Uncertainty()).sentence()
    found = of(weighting=Plain(), timesteps=LossSecondMoment())
    assert found.weights == (1.0,) * 1000
    assert found.sentence().endswith(
        "after 1,000 pictures at the earliest timesteps are drawn by their losses, at unchanged weight"
    )
