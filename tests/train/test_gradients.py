import pytest
import torch
from accelerate import Accelerator
from torch import nn

from inlay.errors import ConfigError, TrainingError
from inlay.train.gradients import Compared, bin_gradients

ACCELERATOR = Accelerator(cpu=True, mixed_precision="no")


class Path:
    timesteps = 100


class Toy:
    """Errors of a small net whose task changes with the timestep; it stands where a diffusion model does."""

    seed = 3
    path = Path()

    def __init__(self):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.asked = []
        self.factor = 1.0

    @property
    def parameters(self):
        return dict(self.net.named_parameters())

    def errors(self, timesteps, seed, number):
        self.asked.append((timesteps, seed, number))
        x = torch.randn(len(timesteps), 3, generator=torch.Generator().manual_seed(seed % 1000 + number))
        return (self.net(x)[:, 0] - timesteps / 10).square() * self.factor


def compared(toy, patterns=(), numbers=10**6):
    return Compared(toy.parameters, patterns, numbers, seed=0)


def measured(toy, chosen, bins=4, samples=8, draw=0):
    return bin_gradients(toy, chosen, bins, samples, samples, draw, ACCELERATOR, "fp32")


def test_gradients_are_those_of_backward_and_leave_its_alone():
    toy = Toy()
    marker = torch.ones(4, 3)
    toy.net[0].weight.grad = marker
    gradients = measured(toy, compared(toy))
    assert toy.net[0].weight.grad is marker
    assert gradients.shape == (4, 21)
    for index, (timesteps, seed, number) in enumerate(list(toy.asked)):
        assert number == 0
        assert bool((timesteps // 25 == index).all())
        toy.net.zero_grad()
        toy.errors(timesteps, seed, number).mean().backward()
        expected = torch.cat([parameter.grad.reshape(-1) for parameter in toy.net.parameters()])
        torch.testing.assert_close(gradients[index], expected)


def test_pictures_that_go_through_in_parts_add_up():
    toy = Toy()
    gradients = bin_gradients(toy, compared(toy), 4, 8, 3, 0, ACCELERATOR, "fp32")
    asked = list(toy.asked)
    assert [len(timesteps) for timesteps, _, _ in asked] == [3, 3, 2] * 4
    for index in range(4):
        toy.net.zero_grad()
        torch.cat([toy.errors(*each) for each in asked[3 * index : 3 * index + 3]]).mean().backward()
        expected = torch.cat([parameter.grad.reshape(-1) for parameter in toy.net.parameters()])
        torch.testing.assert_close(gradients[index], expected)


def test_another_draw_sees_other_pictures_and_the_same_one_the_same():
    toy = Toy()
    first = measured(toy, compared(toy))
    assert torch.equal(measured(toy, compared(toy)), first)
    assert not torch.allclose(measured(toy, compared(toy), draw=1), first)


def test_patterns_choose_parameters():
    toy = Toy()
    whole = measured(toy, compared(toy))
    torch.testing.assert_close(measured(toy, compared(toy, ("2.*",))), whole[:, 16:])
    torch.testing.assert_close(measured(toy, compared(toy, ("*.bias",))), whole[:, [12, 13, 14, 15, 20]])
    with pytest.raises(ConfigError, match=r"parameters=\['up_\*'\]: no trained parameter .* 0\.weight, 0\.bias"):
        compared(toy, ("up_*",))


def test_a_sample_of_the_numbers_estimates_products():
    toy = Toy()
    whole = measured(toy, compared(toy))
    chosen = compared(toy, numbers=20)
    some = measured(toy, chosen)
    assert chosen.count == 20
    assert some.shape == (4, 20)
    # Each column is one of the whole's, and the choice follows from the seed.
    assert all(any(torch.allclose(column, other) for other in whole.T) for column in some.T)
    assert torch.equal(measured(toy, compared(toy, numbers=20)), some)
    many = [measured(toy, Compared(toy.parameters, (), 20, seed)) for seed in range(200)]
    mean = torch.stack([rows @ rows.T * 21 / 20 for rows in many]).mean(0)
    torch.testing.assert_close(mean, whole @ whole.T, rtol=0.15, atol=0.05 * float((whole @ whole.T).max()))


def test_parameters_that_a_loss_does_not_touch_have_gradient_zero():
    toy = Toy()
    toy.net.add_module("idle", nn.Linear(1, 2))
    parameters = toy.parameters
    toy.net = toy.net[:3]
    gradients = measured(toy, Compared(parameters, (), 10**6, 0))
    assert gradients[:, -4:].abs().max() == 0
    assert gradients[:, :-4].abs().min(1).values.max() > 0


def test_a_gradient_that_is_not_finite_is_named():
    toy = Toy()
    toy.factor = float("inf")
    with pytest.raises(TrainingError, match="gradient of timestep bin 0 of 4 is not finite"):
        measured(toy, compared(toy))


class Two:
    """The accelerator as one of two processes sees it; the sum over both is taken by hand."""

    num_processes = 2
    device = torch.device("cpu")

    def __init__(self, index):
        self.process_index = index

    def reduce(self, tensor, kind):
        assert kind == "sum"
        return tensor


def test_processes_share_the_bins():
    toy = Toy()
    whole = measured(toy, compared(toy))
    parts = [bin_gradients(toy, compared(toy), 4, 8, 8, 0, Two(index), "fp32") for index in range(2)]
    assert torch.equal(parts[0] + parts[1], whole)
    assert all(bool((part.abs().sum(1) > 0).sum() == 2) for part in parts)
