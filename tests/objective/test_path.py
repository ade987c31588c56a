import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import ConfigError
from inlay.objective.path import (
    Path,
    cosine_alphas_cumprod,
    linear_alphas_cumprod,
    rescale_zero_terminal_snr,
    scaled_linear_alphas_cumprod,
)

PATHS = {
    "linear": Path.from_alphas_cumprod(linear_alphas_cumprod()),
    "scaled_linear": Path.from_alphas_cumprod(scaled_linear_alphas_cumprod()),
    "cosine": Path.from_alphas_cumprod(cosine_alphas_cumprod()),
    "zero_terminal_snr": Path.from_alphas_cumprod(rescale_zero_terminal_snr(scaled_linear_alphas_cumprod())),
    "flow": Path.rectified_flow(),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def samples(dtype=torch.float64, batch=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, batch, 4, 3, 3, generator=generator, dtype=torch.float64).to(dtype)
    t = torch.randint(0, 1000, (batch,), generator=generator)
    t[:2] = torch.tensor([0, 999])
    return clean, noise, t


@pytest.mark.parametrize(
    ("beta_schedule", "alphas_cumprod"),
    [
        ("linear", linear_alphas_cumprod()),
        ("scaled_linear", scaled_linear_alphas_cumprod(start=1e-4, end=0.02)),
        ("squaredcos_cap_v2", cosine_alphas_cumprod()),
    ],
)
def test_schedules_noise_and_velocity_are_those_of_diffusers(beta_schedule, alphas_cumprod):
    scheduler = DDPMScheduler(beta_schedule=beta_schedule)
    torch.testing.assert_close(alphas_cumprod.float(), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-9)
    path = Path.from_alphas_cumprod(scheduler.alphas_cumprod)
    clean, noise, t = samples(torch.float32)
    torch.testing.assert_close(path.add_noise(clean, noise, t), scheduler.add_noise(clean, noise, t), rtol=0, atol=1e-6)
    velocity = scheduler.get_velocity(clean, noise, t)
    torch.testing.assert_close(path.target("v_prediction", clean, noise, t), velocity, rtol=0, atol=1e-6)


def test_zero_terminal_snr_is_that_of_diffusers_and_keeps_the_first_value():
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=True
    )
    rescaled = rescale_zero_terminal_snr(scaled_linear_alphas_cumprod())
    torch.testing.assert_close(rescaled.float(), scheduler.alphas_cumprod, rtol=1e-3, atol=1e-7)
    assert rescaled[-1] == 0
    assert rescaled[0] == pytest.approx(1 - 0.00085)


@pytest.mark.parametrize(
    ("name", "snr", "timestep"), [("cosine", 5, 261), ("cosine", 1, 495), ("scaled_linear", 5, 146)]
)
def test_signal_to_noise_ratio_crosses_where_recomputed(name, snr, timestep):
    ratios = PATHS[name].snr(torch.arange(1000))
    assert int((ratios - snr).abs().argmin()) == timestep


@every_path
def test_snr_falls_and_is_alpha_over_sigma_squared(path):
    t = torch.arange(1000)
    assert path.timesteps == 1000
    assert path.snr(t).dtype == torch.float64
    assert bool((path.snr(t).diff() < 0).all())
    torch.testing.assert_close(path.snr(t) * path.sigma(t) ** 2, path.alpha(t) ** 2)
    total = path.alpha(t) + path.sigma(t) if path.velocity == "flow" else path.alpha(t) ** 2 + path.sigma(t) ** 2
    torch.testing.assert_close(total, torch.ones(1000, dtype=torch.float64))


def test_flow_levels_end_in_pure_noise_and_the_velocity_points_from_clean_to_noise():
    path = Path.rectified_flow(10)
    torch.testing.assert_close(path.sigma(torch.tensor([0, 4, 9])), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64))
    clean, noise, _ = samples(batch=3)
    torch.testing.assert_close(path.target("flow", clean, noise, torch.tensor([0, 4, 9])), noise - clean)


@every_path
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_true_targets_give_back_the_clean_sample_and_the_noise(path, seed):
    clean, noise, t = samples(seed=seed)
    noisy = path.add_noise(clean, noise, t)
    for prediction in ("epsilon", "sample", path.velocity):
        output = path.target(prediction, clean, noise, t)
        torch.testing.assert_close(path.to_epsilon(prediction, output, noisy, t), noise, rtol=1e-7, atol=1e-7)
        some = path.alpha(t) > 0 if prediction == "epsilon" else torch.full_like(t, True, dtype=torch.bool)
        restored = path.to_clean(prediction, output[some], noisy[some], t[some])
        torch.testing.assert_close(restored, clean[some], rtol=1e-7, atol=1e-7)


@every_path
def test_conversions_of_any_output_agree_with_each_other(path):
    clean, noise, t = samples()
    t = t.clamp(max=998)
    noisy, output = path.add_noise(clean, noise, t), torch.randn_like(clean)
    for prediction in ("epsilon", "sample", path.velocity):
        implied_clean = path.to_clean(prediction, output, noisy, t)
        implied_noise = path.to_epsilon(prediction, output, noisy, t)
        torch.testing.assert_close(path.add_noise(implied_clean, implied_noise, t), noisy)
        torch.testing.assert_close(path.target(prediction, implied_clean, implied_noise, t), output)


def test_the_samples_dtype_is_kept():
    clean, noise, t = samples(torch.bfloat16)
    path = PATHS["scaled_linear"]
    assert path.add_noise(clean, noise, t).dtype == torch.bfloat16
    assert path.target("v_prediction", clean, noise, t).dtype == torch.bfloat16


def test_epsilon_has_no_clean_sample_without_signal():
    _, noise, t = samples()
    with pytest.raises(ConfigError, match=r"ratio is 0; allowed with zero terminal SNR: v_prediction, sample"):
        PATHS["zero_terminal_snr"].to_clean("epsilon", noise, noise, t)


@pytest.mark.parametrize(("path", "foreign"), [("cosine", "flow"), ("flow", "v_prediction")])
def test_the_velocity_of_another_path_is_refused(path, foreign):
    clean, noise, t = samples()
    for call in (PATHS[path].target, PATHS[path].to_clean, PATHS[path].to_epsilon):
        with pytest.raises(ConfigError, match=rf"prediction '{foreign}' is not defined on this path; allowed: "):
            call(foreign, clean, noise, t)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 0.7], "must not increase"),
        ([1.0, 0.5], r"in \[0, 1\)"),
        ([0.5, -0.1], r"in \[0, 1\)"),
        ([0.5, float("nan")], r"in \[0, 1\)"),
        ([], r"in \[0, 1\)"),
        ([[0.5]], r"in \[0, 1\)"),
    ],
)
def test_impossible_schedules_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Path.from_alphas_cumprod(torch.tensor(values))
