import pytest
import torch

from inlay.errors import ArtifactError, ConfigError
from inlay.objective.live import LiveObjective, MultiTaskWeighting, draw_in_bin
from inlay.objective.multitask import bin_of
from inlay.objective.path import Path, rescale_zero_terminal_snr, scaled_linear_alphas_cumprod
from inlay.objective.settings import Objective
from inlay.objective.timesteps import LossSecondMoment
from inlay.objective.weighting import UGD, FrankWolfe, MinSNR, Uncertainty, weight_table
from inlay.randomness import stream

SD = Path.from_alphas_cumprod(scaled_linear_alphas_cumprod())
ZERO = Path.from_alphas_cumprod(rescale_zero_terminal_snr(scaled_linear_alphas_cumprod()))


def live(path=SD, prediction="epsilon", **options):
    return LiveObjective(Objective(prediction=prediction, **options), path, seed=0)


def alone(rows):
    """Gather over a single process."""
    return rows


def test_a_fixed_objective_is_its_table_and_its_sampler():
    objective = live(weighting=MinSNR())
    t = objective.draw(stream(0, "timesteps"), 8)
    assert torch.equal(t, objective.settings.timesteps.sample(stream(0, "timesteps"), 8, SD))
    weights, offset = objective.terms(t)
    assert torch.equal(weights, weight_table(MinSNR(), "epsilon", SD)[t])
    assert offset is None
    assert objective.optimizer is None
    assert objective.state() == {}


def test_uncertainty_divides_by_what_it_adds():
    objective = live(weighting=Uncertainty(learning_rate=0.5))
    t = torch.tensor([0, 400, 999])
    weights, offset = objective.terms(t)
    assert torch.equal(weights.detach(), weight_table(Uncertainty(), "epsilon", SD)[t])
    assert offset.tolist() == [0, 0, 0]
    errors = torch.tensor([0.3, 0.2, 0.1])
    (errors * weights + offset).sum().backward()
    objective.optimizer.step()
    weights, offset = objective.terms(t)
    assert bool((offset != 0).all())
    table = weight_table(Uncertainty(), "epsilon", SD)
    torch.testing.assert_close(weights.detach(), table[t] / offset.detach().exp())
    torch.testing.assert_close(objective.weighting.weights()[t], weights.detach())
    assert not objective.weighting.weights().requires_grad


@pytest.mark.parametrize("scheme", [UGD(bins=4), FrankWolfe(bins=4)])
def test_multi_task_weights_have_mean_one_and_favour_small_gradients(scheme):
    objective = live(weighting=scheme)
    assert objective.weighting.weights().tolist() == [1.0] * 1000
    gradients = torch.eye(4) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    objective.weighting.solve(gradients @ gradients.T)
    weights = objective.weighting.weights()
    assert weights.mean().item() == pytest.approx(1, abs=1e-6)
    of_bins = weights[[0, 250, 500, 750]]
    assert bool((of_bins.diff() < 0).all())
    # Orthogonal gradients: w_k is proportional to 1 / (|g_k|^2 + lambda), lambda = 0.05 * 7.5.
    expected = 1 / (torch.tensor([1.0, 4.0, 9.0, 16.0]) + 0.375)
    torch.testing.assert_close(of_bins, expected * 4 / expected.sum(), rtol=0.02, atol=0.01)
    assert torch.equal(weights[:250], weights[:1].expand(250))
    other = live(weighting=scheme)
    other.load({name: value.clone() for name, value in objective.state().items()})
    assert torch.equal(other.weighting.weights(), weights)


def test_gradients_that_are_all_zero_keep_the_weights():
    weighting = MultiTaskWeighting(UGD(bins=2), 10)
    weighting.solve(torch.zeros(2, 2))
    assert weighting.weights().tolist() == [1.0] * 10


def test_importance_sampling_divides_by_its_own_factor():
    """What is remembered are the weighted losses, not what the draws made of them."""
    objective = live(weighting=MinSNR(), timesteps=LossSecondMoment(bins=2, history=2))
    table = weight_table(MinSNR(), "epsilon", SD)
    t = torch.tensor([100, 200, 700, 800])
    errors = torch.tensor([1.0, 1.0, 3.0, 3.0])
    for _ in range(5):
        weights, _ = objective.terms(t)
        objective.note(t[:2], (errors * weights)[:2])  # two micro-batches
        objective.note(t[2:], (errors * weights)[2:])
        objective.observe(alone)
    rms = (errors * table[t]).view(2, 2).square().mean(1).sqrt().double()
    expected = 0.999 * rms / rms.sum() / 500 + 0.001 / 1000
    torch.testing.assert_close(objective.history.probabilities()[[0, 999]], expected, rtol=1e-5, atol=0)


def test_all_processes_take_in_all_losses():
    def objective():
        return live(timesteps=LossSecondMoment(bins=2, history=1))

    one, first, second = objective(), objective(), objective()
    t, losses = torch.tensor([10, 900]), torch.tensor([1.0, 4.0])
    one.note(t, losses)
    one.observe(alone)
    rows = torch.stack([t.float(), losses], 1)
    for number, process in enumerate((first, second)):
        process.note(t[number : number + 1], losses[number : number + 1])
        process.observe(lambda mine, number=number: rows if torch.equal(mine, rows[number : number + 1]) else None)
        assert torch.equal(process.history.probabilities(), one.history.probabilities())


def test_what_goes_by_no_losses_keeps_none():
    objective = live(weighting=MinSNR())
    objective.note(torch.tensor([1]), torch.tensor([1.0]))
    assert objective._noted == []
    objective.observe(lambda rows: pytest.fail("nothing is sent"))


def test_the_state_of_another_objective_is_refused():
    with pytest.raises(ArtifactError, match=r"weighting\.linear\.weight"):
        live(weighting=MinSNR()).load(live(weighting=Uncertainty()).state())


def test_pairs_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"'uncertainty' does not fit prediction 'epsilon'.*allowed here: plain, snr"):
        live(ZERO, weighting=Uncertainty())
    live(ZERO, "v_prediction", weighting=Uncertainty())
    with pytest.raises(ConfigError, match="bins=2000: the path has only 1000 timesteps"):
        live(weighting=UGD(bins=2000))


@pytest.mark.parametrize(("timesteps", "bins"), [(1000, 20), (10, 3), (7, 7)])
def test_draws_in_a_bin_cover_it_and_nothing_else(timesteps, bins):
    for index in range(bins):
        drawn = draw_in_bin(stream(0, "bin", index), index, bins, 500, timesteps)
        assert set(drawn.tolist()) == set((bin_of(timesteps, bins) == index).nonzero().flatten().tolist())
