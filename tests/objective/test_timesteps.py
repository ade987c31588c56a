import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.objective.path import Path, rescale_zero_terminal_snr, scaled_linear_alphas_cumprod
from inlay.objective.timesteps import Laplace, LogitNormal, LossSecondMoment, Mode, Shifted, Uniform, Within

SD = Path.from_alphas_cumprod(scaled_linear_alphas_cumprod())
ZERO = Path.from_alphas_cumprod(rescale_zero_terminal_snr(scaled_linear_alphas_cumprod()))
FLOW = Path.rectified_flow()
SAMPLERS = (Uniform(), LogitNormal(), Mode(), Shifted(), Laplace(), LossSecondMoment(), Within(start=0.1, end=0.35))
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)


def stratified(sampler):
    return sampler.model_copy(update={"stratified": True})


def many(sampler, path=SD, count=100_000):
    return sampler.sample(torch.Generator().manual_seed(0), count, path)


def share(t, low, high):
    return float(((t >= low) & (t < high)).double().mean())


@every_sampler
@pytest.mark.parametrize("path", [SD, ZERO, FLOW], ids=["scaled_linear", "zero_terminal_snr", "flow"])
def test_draws_are_timesteps_of_the_path_and_follow_the_generator(sampler, path):
    t = many(sampler, path)
    assert t.dtype == torch.int64
    assert t.shape == (100_000,)
    assert int(t.min()) >= 0
    assert int(t.max()) < 1000
    assert torch.equal(t, many(sampler, path))


@every_sampler
@settings(deadline=None)
@given(u=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=20))
def test_quantiles_never_fall_and_reach_no_further_than_the_path(sampler, u):
    for path in (SD, ZERO, FLOW):
        t = sampler.quantile(torch.tensor(sorted(u), dtype=torch.float64), path)
        assert bool((t.diff() >= 0).all())
        assert 0 <= int(t[0]) <= int(t[-1]) < 1000


def test_uniform_covers_every_timestep_equally():
    counts = torch.bincount(many(Uniform(), count=400_000), minlength=1000)
    # 400 expected with a standard deviation of 20; six of them either way.
    assert 280 < int(counts.min()) <= int(counts.max()) < 520


def test_within_draws_from_its_part_only_and_evenly():
    t = many(Within(start=0.1, end=0.3))
    assert (int(t.min()), int(t.max())) == (100, 299)
    assert share(t, 100, 150) == pytest.approx(0.25, abs=0.01)
    assert set(many(Within(start=0.2, end=0.2001)).tolist()) == {200}
    assert set(many(Within(start=0.2001, end=0.2002)).tolist()) == {200}
    assert torch.equal(many(Within()), many(Uniform()))
    with pytest.raises(ValueError, match=r"start=0.3 must lie below end=0.2"):
        Within(start=0.3, end=0.2)


def test_logit_normal_quartiles():
    t = many(LogitNormal(mean=0.5, std=0.8))
    for probability, z in ((0.25, -0.67449), (0.5, 0.0), (0.75, 0.67449)):
        expected = 1000 / (1 + math.exp(-(0.5 + 0.8 * z)))
        assert float(t.double().quantile(probability)) == pytest.approx(expected, abs=6)


def test_mode_is_equation_20_and_scale_zero_is_uniform():
    u = torch.linspace(0, 1, 101, dtype=torch.float64)[:-1]
    for scale in (-1, 0.0, 1.29, 1.75):
        published = 1 - u - scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
        # The published function falls with u; both are the same distribution when u is uniform.
        expected = (published * 1000).floor().clamp(max=999).long()
        t = Mode(scale=scale).quantile(1 - u, FLOW)
        assert int((t - expected).abs().max()) <= 1
    assert share(many(Mode(scale=1.29)), 400, 600) > 0.25
    assert share(many(Mode(scale=-1)), 400, 600) < 0.15


def test_shift_favours_noise_by_its_formula():
    t = many(Shifted(shift=3))
    # P(level < 1/2) = u where 3 u / (1 + 2 u) = 1/2, that is u = 1/4.
    assert share(t, 0, 500) == pytest.approx(0.25, abs=0.006)
    assert torch.equal(many(Shifted(shift=1)), many(Uniform()))


def test_laplace_draws_log_snr():
    log_snr = SD.snr(many(Laplace(mean=-1, scale=0.5))).log()
    assert float(log_snr.median()) == pytest.approx(-1, abs=0.02)
    assert float((log_snr + 1).abs().mean()) == pytest.approx(0.5, abs=0.01)


def test_laplace_gives_what_is_off_the_path_to_its_ends_but_never_to_pure_noise():
    assert share(many(Laplace(mean=-30)), 999, 1000) == 1
    assert share(many(Laplace(mean=30)), 0, 1) == 1
    assert int(many(Laplace(mean=-30), ZERO).max()) == 998


@every_sampler
def test_stratified_batches_hold_one_draw_of_each_part(sampler):
    sampler = stratified(sampler)
    edges = sampler.quantile(torch.arange(8, dtype=torch.float64) / 8, SD)
    for seed in range(20):
        t = sampler.sample(torch.Generator().manual_seed(seed), 8, SD).sort().values
        assert bool((t >= edges).all())
        assert bool((t[:-1] <= edges[1:]).all())


@every_sampler
def test_stratified_keeps_the_distribution_of_every_place_in_the_batch(sampler):
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([stratified(sampler).sample(generator, 4, SD)[0] for _ in range(2000)]).double()
    reference = many(sampler).double()
    error = float(reference.std()) / math.sqrt(2000)
    assert abs(float(first.mean() - reference.mean())) < 4 * error
    assert float(first.std()) == pytest.approx(float(reference.std()), rel=0.1)


def test_stratified_draws_lower_the_spread_of_the_batch_mean():
    def spread(sampler):
        generator = torch.Generator().manual_seed(0)
        return float(torch.stack([sampler.sample(generator, 8, SD).double().mean() for _ in range(300)]).std())

    assert spread(Uniform(stratified=True)) < spread(Uniform()) / 4


def test_laplace_takes_the_nearest_log_snr():
    log_snr = torch.tensor([4.0, 2.0, -1.0, -2.0], dtype=torch.float64)
    path = Path.from_alphas_cumprod(log_snr.sigmoid())
    for wanted, timestep in ((9, 0), (3.1, 0), (2.9, 1), (0.6, 1), (0.4, 2), (-1.4, 2), (-1.6, 3), (-9, 3)):
        # The median draw is the mean of the distribution.
        assert Laplace(mean=wanted).quantile(torch.tensor([0.5], dtype=torch.float64), path).tolist() == [timestep]
