import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import ConfigError
from inlay.objective.loss import loss_per_sample
from inlay.objective.path import (
    Path,
    cosine_alphas_cumprod,
    linear_alphas_cumprod,
    rescale_zero_terminal_snr,
    scaled_linear_alphas_cumprod,
)
from inlay.objective.weighting import (
    EDM,
    P2,
    SNR,
    UGD,
    Constant,
    Debiased,
    FrankWolfe,
    MaxSNR,
    MinSNR,
    Plain,
    Sigmoid,
    SoftMinSNR,
    Uncertainty,
    weight,
    weight_table,
)

PATHS = {
    "linear": Path.from_alphas_cumprod(linear_alphas_cumprod()),
    "scaled_linear": Path.from_alphas_cumprod(scaled_linear_alphas_cumprod()),
    "cosine": Path.from_alphas_cumprod(cosine_alphas_cumprod()),
    "zero_terminal_snr": Path.from_alphas_cumprod(rescale_zero_terminal_snr(scaled_linear_alphas_cumprod())),
    "flow": Path.rectified_flow(),
}
SD = PATHS["scaled_linear"]
SCHEMES = (
    Constant(),
    SNR(),
    MaxSNR(),
    MinSNR(),
    SoftMinSNR(),
    P2(),
    Debiased(),
    EDM(),
    Sigmoid(),
    Uncertainty(),
)
ALL_TIMESTEPS = torch.arange(1000)
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)


def table(scheme, prediction, path=SD):
    return weight_table(scheme, prediction, path).double()


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected).double().expand_as(actual), rtol=1e-6, atol=1e-30)


# What the publications print for each target, written out again: the code holds only the weight on the clean sample.
def test_published_forms_on_epsilon():
    snr = SD.snr(ALL_TIMESTEPS)
    assert_equal(table(Constant(), "epsilon"), 1 / snr)
    assert_equal(table(SNR(), "epsilon"), 1.0)
    assert_equal(table(MaxSNR(), "epsilon"), (1 / snr).clamp(min=1))
    assert_equal(table(MinSNR(), "epsilon"), (5 / snr).clamp(max=1))
    assert_equal(table(SoftMinSNR(), "epsilon"), 4 / (snr + 4))
    assert_equal(table(P2(exponent=0.5), "epsilon"), 1 / (1 + snr).sqrt())
    assert_equal(table(Debiased(), "epsilon"), 1 / snr.clamp(max=1000).sqrt())
    assert_equal(table(Sigmoid(), "epsilon"), torch.sigmoid(2 - snr.log()))


def test_published_forms_on_the_clean_sample():
    snr = SD.snr(ALL_TIMESTEPS)
    sigma = snr.rsqrt()  # of the variance-exploding form in which EDM is written
    assert_equal(table(Constant(), "sample"), 1.0)
    assert_equal(table(MinSNR(gamma=2), "sample"), snr.clamp(max=2))
    assert_equal(table(EDM(sigma_data=0.3), "sample"), (sigma**2 + 0.3**2) / (sigma * 0.3) ** 2)


def test_published_forms_on_v_and_flow():
    snr = SD.snr(ALL_TIMESTEPS)
    assert_equal(table(MinSNR(), "v_prediction"), snr.clamp(max=5) / (snr + 1))
    assert_equal(table(Debiased(snr_cap=1e9), "v_prediction"), snr.sqrt() / (snr + 1))
    level = (ALL_TIMESTEPS.double() + 1) / 1000
    flow = table(MinSNR(), "flow", PATHS["flow"])
    torch.testing.assert_close(flow, torch.minimum((1 - level) ** 2, 5 * level**2), rtol=1e-5, atol=1e-12)


def test_min_snr_on_stable_diffusions_schedule():
    epsilon = table(MinSNR(), "epsilon")
    assert int((epsilon < 1).sum()) == 147
    assert float(epsilon.mean()) == pytest.approx(0.917, abs=5e-4)
    assert float(table(MinSNR(), "v_prediction").mean()) == pytest.approx(0.294, abs=5e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_limits_of_the_parameters(prediction):
    assert_equal(table(MinSNR(gamma=1e9), prediction), table(SNR(), prediction))
    assert_equal(table(P2(exponent=0), prediction), table(SNR(), prediction))
    assert_equal(table(MaxSNR(gamma=1e9), prediction) / 1e9, table(Constant(), prediction))
    assert_equal(table(SoftMinSNR(gamma=float(torch.e) ** 2), prediction), table(Sigmoid(bias=2), prediction))
    assert_equal(table(EDM(sigma_data=1), "v_prediction"), 1.0)


@every_path
def test_multi_task_weights_start_as_the_plain_loss(path):
    for prediction in ("epsilon", "sample", path.velocity):
        for scheme in (UGD(), FrankWolfe()):
            assert_equal(table(scheme, prediction, path), 1.0)


@every_path
def test_plain_is_one_on_whatever_is_predicted(path):
    for prediction in ("epsilon", "sample", path.velocity):
        assert_equal(table(Plain(), prediction, path), 1.0)


@every_path
@every_scheme
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_one_scheme_is_one_objective_whatever_the_target(path, scheme, seed):
    """The same model output, read as any target and compared with it, costs the same and pulls the same way."""
    generator = torch.Generator().manual_seed(seed)
    clean, noise, output = torch.randn(3, 4, 2, 3, 3, generator=generator, dtype=torch.float64)
    t = torch.randint(0, 999, (4,), generator=generator)
    noisy = path.add_noise(clean, noise, t)
    losses, gradients = [], []
    for prediction in ("epsilon", "sample", path.velocity):
        if prediction == "epsilon" and bool((path.snr(ALL_TIMESTEPS) == 0).any()) and scheme.name in UNBOUNDED:
            continue
        predicted_clean = output.clone().requires_grad_()
        implied = path.target(prediction, predicted_clean, path.to_epsilon("sample", predicted_clean, noisy, t), t)
        squared = (implied - path.target(prediction, clean, noise, t)).square().flatten(1).mean(1)
        loss = squared * weight(scheme, prediction, path, t)
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.sum(), predicted_clean)[0])
    assert len(losses) >= 2
    for loss, gradient in zip(losses[1:], gradients[1:], strict=True):
        torch.testing.assert_close(loss, losses[0], rtol=1e-5, atol=1e-12)
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-5, atol=1e-9)


@every_path
@every_scheme
def test_a_network_gets_the_same_gradients_from_every_target(path, scheme):
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 32, 6, generator=generator)
    # Up to 900: nearer to pure noise, float32 cannot tell the clean sample from an epsilon error.
    t = torch.randint(50, 900, (32,), generator=generator)
    noisy = path.add_noise(clean, noise, t)
    layer = torch.nn.Linear(6, 6)
    reference = None
    for prediction in ("sample", path.velocity, "epsilon"):
        if prediction == "epsilon" and bool((path.snr(ALL_TIMESTEPS) == 0).any()) and scheme.name in UNBOUNDED:
            continue
        layer.zero_grad()
        predicted_clean = layer(noisy)
        implied_noise = path.to_epsilon("sample", predicted_clean, noisy, t)
        output = path.target(prediction, predicted_clean, implied_noise, t)
        weights = weight(scheme, prediction, path, t)
        loss_per_sample(output, path.target(prediction, clean, noise, t), weights).mean().backward()
        assert layer.weight.grad is not None
        if reference is None:
            reference = layer.weight.grad.clone()
        torch.testing.assert_close(layer.weight.grad, reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max()))


# Weights whose limit on the epsilon error at a signal-to-noise ratio of 0 is infinite, worked out by hand.
UNBOUNDED = {"constant", "max_snr", "debiased", "edm", "uncertainty"}


@pytest.mark.parametrize("path", [PATHS["zero_terminal_snr"], PATHS["flow"]], ids=["zero_terminal_snr", "flow"])
@every_scheme
def test_limits_where_there_is_no_signal(path, scheme):
    on_clean = {"constant": 1.0, "max_snr": 1.0, "edm": 4.0, "uncertainty": 4.0}.get(scheme.name, 0.0)
    assert float(weight(scheme, "sample", path, torch.tensor([999]))) == on_clean
    assert float(weight(scheme, path.velocity, path, torch.tensor([999]))) == on_clean
    if scheme.name in UNBOUNDED:
        with pytest.raises(ConfigError, match=r"timestep 999 .* no bound; allowed here: plain, snr, min_snr,"):
            weight(scheme, "epsilon", path, torch.tensor([3]))
    else:
        assert float(weight(scheme, "epsilon", path, torch.tensor([999]))) == 1.0


@every_path
@every_scheme
def test_weights_are_finite_and_never_negative(path, scheme):
    for prediction in ("epsilon", "sample", path.velocity):
        if prediction == "epsilon" and bool((path.snr(ALL_TIMESTEPS) == 0).any()) and scheme.name in UNBOUNDED:
            continue
        weights = weight_table(scheme, prediction, path)
        assert weights.dtype == torch.float32
        assert weights.shape == (1000,)
        assert bool((weights.isfinite() & (weights >= 0)).all())


@settings(deadline=None)
@given(gamma=st.floats(1e-3, 1e3), snr_end=st.floats(1e-12, 0.9))
def test_min_snr_lies_below_both_of_its_bounds(gamma, snr_end):
    path = Path.from_alphas_cumprod(torch.linspace(0.99, snr_end, 50, dtype=torch.float64))
    weights = weight_table(MinSNR(gamma=gamma), "sample", path).double()
    soft = weight_table(SoftMinSNR(gamma=gamma), "sample", path).double()
    snr = path.snr(torch.arange(50))
    assert bool((weights <= gamma * (1 + 1e-6)).all())
    assert bool((weights <= snr * (1 + 1e-6)).all())
    # The soft form is the harmonic sum: at most the minimum, at least half of it.
    assert bool((soft <= weights * (1 + 1e-6)).all())
    assert bool((soft >= weights / 2 * (1 - 1e-6)).all())


def test_the_velocity_of_another_path_is_refused():
    with pytest.raises(
        ConfigError, match=r"'flow' is not defined on this path; allowed: epsilon, sample, v_prediction"
    ):
        weight_table(Plain(), "flow", SD)


def test_tables_follow_the_schedule_they_are_asked_for():
    """A table must not outlive its schedule: rescaling to zero terminal SNR changes the weights."""
    before = weight_table(MinSNR(), "v_prediction", SD)
    after = weight_table(MinSNR(), "v_prediction", PATHS["zero_terminal_snr"])
    assert float(before[-1]) > 0
    assert float(after[-1]) == 0
