import pytest
import torch

from inlay.objective.path import Path, rescale_zero_terminal_snr, scaled_linear_alphas_cumprod
from inlay.objective.uncertainty import LogVariance

SD = Path.from_alphas_cumprod(scaled_linear_alphas_cumprod())
ZERO = Path.from_alphas_cumprod(rescale_zero_terminal_snr(scaled_linear_alphas_cumprod()))


@pytest.mark.parametrize("path", [SD, ZERO, Path.rectified_flow()])
def test_it_starts_at_zero_and_is_finite_where_there_is_no_signal(path):
    net = LogVariance(path, 128, seed=0)
    assert net(torch.arange(1000)).tolist() == [0.0] * 1000
    assert bool(net.features.isfinite().all())
    assert net.features.norm(dim=1).mean().item() == pytest.approx(1, abs=0.1)


def test_features_follow_the_seed_and_are_not_saved():
    assert torch.equal(LogVariance(SD, 16, 3).features, LogVariance(SD, 16, 3).features)
    assert not torch.equal(LogVariance(SD, 16, 3).features, LogVariance(SD, 16, 4).features)
    assert set(LogVariance(SD, 16, 3).state_dict()) == {"linear.weight", "linear.bias"}


def test_the_best_u_is_the_logarithm_of_the_loss():
    """The minimum of L / e^u + u over u is at u = ln L, for every noise level apart."""
    t = torch.arange(0, 1000, 7)
    losses = 0.01 + (t / 1000) ** 2 * 3
    net = LogVariance(SD, 128, seed=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03, betas=(0.9, 0.99))
    for _ in range(1500):
        optimizer.zero_grad()
        u = net(t)
        (losses / u.exp() + u).mean().backward()
        optimizer.step()
    found = net(t).detach()
    assert (found - losses.log()).abs().max().item() < 0.1
    assert losses.log().max() - losses.log().min() > 4


def test_the_gradient_is_that_of_the_formula():
    net = LogVariance(SD, 8, seed=0)
    with torch.no_grad():
        net.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    t, losses = torch.tensor([3, 500, 999]), torch.tensor([0.5, 2.0, 1.0])
    u = net(t)
    (losses / u.exp() + u).sum().backward()
    by_hand = ((1 - losses / u.exp())[:, None] * net.features[t]).sum(0)
    torch.testing.assert_close(net.linear.weight.grad[0], by_hand.detach())


def test_autocast_does_not_lower_its_precision():
    net = LogVariance(SD, 128, seed=0)
    with torch.no_grad():
        net.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    full = net(torch.arange(1000))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(torch.arange(1000)), full)
