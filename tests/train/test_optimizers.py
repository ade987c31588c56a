"""Optimizers: that each learns, that it keeps what is counted, and what sets it apart."""

from contextlib import nullcontext
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from inlay.errors import ConfigError
from inlay.train.optimizers import (
    Optimizer,
    at_average,
    found_rate,
    is_matrix,
)
from inlay.train.settings import TrainSettings

KINDS = get_args(get_args(Optimizer)[0])
NAMES = [kind().name for kind in KINDS]
READ = TypeAdapter(Optimizer).validate_python


def network() -> nn.Module:
    """Return a small network with parameters of every kind."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 5))
    net.register_parameter("token_embedding", nn.Parameter(torch.randn(7, 5)))
    return net


def loss(net: nn.Module, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    pictures = torch.randn(8, 2, 4, 4, generator=generator)
    wanted = torch.stack(
        [pictures.mean((1, 2, 3)), pictures[:, 0].mean((1, 2)), *pictures[:, :, 0, 0].T, pictures[:, 1, 1, 1]], 1
    )
    added = net.get_parameter("token_embedding")[torch.arange(8) % 7]
    return ((net(pictures) + added - wanted) ** 2).mean()


def total(net: nn.Module) -> float:
    """Return the loss on what training does not see."""
    with torch.no_grad():
        return sum(float(loss(net, step)) for step in range(300, 320))


def train(name: str, steps: int, rate: float = 1e-2, net: nn.Module | None = None, **settings):
    """Return the network and its optimizers after so many steps."""
    net = net or network()
    optimizers = READ({"name": name, **settings}).make({rate: dict(net.named_parameters())})
    for step in range(steps):
        loss(net, step).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return net, optimizers


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns(name):
    before = total(network())
    net, optimizers = train(name, 300, rate=1.0 if name == "prodigy" else 1e-2)
    with at_average(*optimizers) if name == "schedule_free" else nullcontext():
        after = total(net)
    assert after < 0.3 * before


@pytest.mark.parametrize("settings", [*NAMES, {"name": "prodigy", "slice_p": 11}])
def test_what_an_optimizer_keeps_is_what_is_counted(settings):
    chosen = READ(settings)
    options = {} if isinstance(settings, str) else {"slice_p": 11}
    net, optimizers = train(chosen.name, 1, **options)
    kept = sum(
        value.numel()
        for optimizer in optimizers
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key != "step"
    )
    counted = sum(chosen.kept(name, parameter.shape) for name, parameter in net.named_parameters())
    # Of what begins at zero, here the norm's bias, Prodigy keeps a single number.
    assert counted - kept == (-(-16 // chosen.slice_p) - 1 if chosen.name == "prodigy" else 0)


def test_adamw_is_torch_s_own():
    net, _ = train("adamw", 5, betas=(0.8, 0.9), weight_decay=0.1)
    other = network()
    optimizer = torch.optim.AdamW(other.parameters(), 1e-2, (0.8, 0.9), weight_decay=0.1, fused=True)
    for step in range(5):
        loss(other, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(one, two) for one, two in zip(net.parameters(), other.parameters(), strict=True))


def test_muon_makes_singular_values_alike_and_leaves_the_rest_to_adamw():
    before, (net, optimizers) = network(), train("muon", 1, weight_decay=0)
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Muon", "AdamW"]
    by_muon = {name for name, parameter in net.named_parameters() if is_matrix(name, parameter.shape)}
    assert by_muon == {"3.weight"}
    step = (net.get_parameter("3.weight") - before.get_parameter("3.weight")).detach()
    values = torch.linalg.svdvals(step)
    # The iteration brings singular values near 1; the step is then 0.2 sqrt(16) as large (arXiv 2502.16982, eq. 4).
    assert values.min() > 0.6 * 1e-2 * 0.2 * 4
    assert values.max() < 1.3 * 1e-2 * 0.2 * 4
    adamw, _ = train("adamw", 1, weight_decay=0)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, adamw.get_parameter(name)) == (name not in by_muon)


def test_muon_goes_without_what_is_not_there():
    one = {1e-3: {"a.weight": nn.Parameter(torch.ones(2, 2))}}
    assert [type(made).__name__ for made in READ("muon").make(one)] == ["Muon"]
    one = {1e-3: {"a.bias": nn.Parameter(torch.ones(2))}, 1e-2: {"b.bias": nn.Parameter(torch.ones(2))}}
    (adamw,) = READ("muon").make(one)
    assert [group["lr"] for group in adamw.param_groups] == [1e-3, 1e-2]


def test_adafactor_takes_steps_of_the_learning_rate_unless_they_are_to_be_relative():
    def largest(**settings):
        net = nn.Linear(4, 4, bias=False)
        nn.init.zeros_(net.weight)
        parameters = {1e-2: dict(net.named_parameters())}
        (optimizer,) = READ({"name": "adafactor", **settings}).make(parameters)
        net.weight.grad = torch.ones(4, 4)
        optimizer.step()
        return float(net.weight.detach().abs().max())

    assert largest() == pytest.approx(1e-2)
    assert largest(scale_parameter=True) == pytest.approx(1e-5)  # of a tensor that begins at zero: 1e-3 of it


def test_prodigy_finds_a_rate_and_says_so(capsys):
    _, (first,) = train("prodigy", 1, rate=1.0)
    _, (found,) = train("prodigy", 100, rate=1.0)
    assert found_rate(first) < 1e-5
    assert 1e-4 < found_rate(found) < 1
    assert capsys.readouterr().out == ""


def test_schedule_free_shows_the_average_and_goes_on_bit_for_bit():
    straight, _ = train("schedule_free", 6)
    net, optimizers = train("schedule_free", 3)
    live = [parameter.detach().clone() for parameter in net.parameters()]
    with at_average(*optimizers):
        average = [parameter.detach().clone() for parameter in net.parameters()]
    assert not any(torch.equal(one, other) for one, other in zip(live, average, strict=True))
    for step in range(3, 6):
        loss(net, step).backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
        with at_average(*optimizers):
            pass
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), straight.parameters(), strict=True))


def test_the_average_of_schedule_free_is_that_of_its_steps():
    net = nn.Linear(1, 1, bias=False)
    settings = READ({"name": "schedule_free", "weight_decay": 0, "betas": (0.5, 0.0)})
    (optimizer,) = settings.make({0.1: dict(net.named_parameters())})
    begin = float(net.weight.detach())
    for _ in range(4):  # with a constant gradient every step of z is the learning rate
        net.weight.grad = torch.ones(1, 1)
        optimizer.step()
    with at_average(optimizer):
        found = float(net.weight.detach())
    assert begin - found == pytest.approx((0.1 + 0.2 + 0.3 + 0.4) / 4, abs=1e-6)


def test_a_package_that_is_missing_is_named(monkeypatch):
    for name in NAMES:
        READ(name).check_installed()
    monkeypatch.setattr("inlay.train.optimizers.find_spec", lambda package: None)
    READ("muon").check_installed()
    with pytest.raises(ConfigError, match=r"its package prodigyopt is not installed; pip install 'inlay\[opt"):
        READ("prodigy").check_installed()


def test_names_alone_and_settings_of_adamw_alone():
    assert TrainSettings(steps=1, optimizer="prodigy").optimizer.name == "prodigy"
    assert TrainSettings(steps=1, optimizer={"betas": (0.8, 0.9)}).optimizer == READ(
        {"name": "adamw", "betas": (0.8, 0.9)}
    )
    with pytest.raises(ValidationError, match="'adamw', 'adafactor', 'muon', 'prodigy', 'schedule_free'"):
        TrainSettings(steps=1, optimizer="lion")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"optimizer": "schedule_free", "ema": {}},
            "optimizer=schedule_free averages the weights itself; leave out ema",
        ),
        ({"optimizer": "schedule_free", "schedule": {"name": "cosine"}}, "allowed: constant, with a warm-up"),
        ({"optimizer": "prodigy", "learning_rate": (1.0, 0.5)}, "finds one rate for all; give one learning_rate"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        TrainSettings(steps=1, **settings)
