"""Frozen layers that keep less, against torch's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from inlay.base import frozen
from inlay.base.frozen import SMALL, FrozenConv2d, lighten, to_int8

LAYERS = {
    "linear": (nn.Linear(24, 40), (3, 5, 24)),
    "linear without bias": (nn.Linear(24, 40, bias=False), (7, 24)),
    "convolution": (nn.Conv2d(16, 32, 3, padding=1), (2, 16, 7, 5)),
    "strided": (nn.Conv2d(16, 32, 3, stride=2, padding=1, dilation=2), (2, 16, 9, 8)),
    "grouped": (nn.Conv2d(32, 32, 3, groups=2), (2, 32, 6, 6)),
    "convolution without bias": (nn.Conv2d(16, 16, 1, bias=False), (2, 16, 3, 3)),
}
BIASED = {name: one for name, one in LAYERS.items() if isinstance(one[0], nn.Conv2d) and one[0].bias is not None}


@pytest.fixture(autouse=True)
def small_inputs_count(monkeypatch):
    """Let inputs as small as those here be worth it."""
    monkeypatch.setattr(frozen, "WORTH_IT", 1)


each_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)


def copied(layer: nn.Module) -> Any:
    """Return a frozen copy."""
    return copy.deepcopy(layer).requires_grad_(False)


def rounded_and_integers(layer: Any) -> tuple[Any, Any]:
    """Return a layer with its weight rounded to what 8 bits hold, and the same with integers."""
    plain, small = copied(layer), copied(layer)
    whole, scale = to_int8(plain.weight)
    plain.weight.copy_(whole * scale)
    lighten(small, integers=True)
    return plain, small


@given(st.integers(0, 2**32), st.floats(-6, 6))
def test_no_weight_moves_by_more_than_half_a_step_of_its_channel(seed, magnitude):
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed)) * 10**magnitude
    weight[3] = 0
    rounded, scale = to_int8(weight)
    assert rounded.dtype == torch.int8
    assert rounded.abs().amax(1).tolist() == [127, 127, 127, 0, 127]
    assert ((rounded * scale - weight).abs() <= 0.5001 * scale).all()


@each_layer
@pytest.mark.parametrize("autocast", [False, True])
def test_outputs_and_gradients_are_those_of_the_rounded_weight(layer, shape, autocast):
    plain, small = rounded_and_integers(layer)
    for one in (plain, small):
        if one.bias is not None:
            one.bias.requires_grad_(True)  # as BitFit does
    shown = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = []
    for one in (plain, small):
        inputs = shown.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = one(inputs)
        assert output.dtype == (torch.bfloat16 if autocast else torch.float32)
        output.float().square().sum().backward()
        found.append([output, inputs.grad, *([] if one.bias is None else [one.bias.grad])])
    relative, absolute = (0.03, 0.03 * float(found[0][1].abs().max())) if autocast else (1.3e-6, 1e-5)
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=relative, atol=absolute)


@each_layer
@pytest.mark.parametrize("integers", [False, True])
def test_nothing_but_weights_waits_for_the_backward_pass(layer, shape, integers):
    light = copied(layer)
    lighten(light, integers)
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        light(torch.randn(shape, requires_grad=True))
    held = {tensor.data_ptr() for tensor in (*light.parameters(), *light.buffers())}
    assert kept
    assert {tensor.data_ptr() for tensor in kept} <= held


@pytest.mark.parametrize(("layer", "shape"), BIASED.values(), ids=BIASED)
@pytest.mark.parametrize(("of_input", "of_bias"), [(True, True), (True, False), (False, True)])
def test_a_light_convolution_is_torchs_own_to_the_last_bit(layer, shape, of_input, of_bias):
    plain, light = copied(layer), copied(layer)
    lighten(light)
    assert light.__class__ is FrozenConv2d
    assert light.state_dict().keys() == plain.state_dict().keys()
    shown = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = []
    for one in (plain, light):
        one.bias.requires_grad_(of_bias)
        inputs = shown.clone().requires_grad_(of_input)
        output = one(inputs)
        output.square().sum().backward()
        found.append((output, inputs.grad, one.bias.grad))
    for expected, got in zip(*found, strict=True):
        assert got is None if expected is None else torch.equal(got, expected)


def test_layers_stay_the_objects_they_were_and_give_their_rounded_weight():
    layer = nn.Linear(32, 32).requires_grad_(False)
    holder = nn.Sequential(layer, nn.GroupNorm(2, 32))
    before = layer.weight.detach().clone()
    lighten(holder, integers=True)
    assert holder[0] is layer
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == before.shape
    assert 0 < (layer.weight - before).abs().max() < before.abs().max() / 250
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert holder[1].weight.dtype == torch.float32
    lighten(holder, integers=True)  # once more changes nothing
    assert layer.weight_int8.dtype == torch.int8


def test_what_trains_and_the_first_and_last_layers_stay():
    trained = nn.Linear(32, 32)
    first, last = nn.Conv2d(4, 32, 3), nn.Linear(32, SMALL - 1)
    reflecting = nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect")
    learned = nn.Conv2d(32, 32, 3)
    for layer in (first, last, reflecting):
        layer.requires_grad_(False)
    module = nn.ModuleList([trained, learned, first, last, reflecting])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    lighten(module, integers=True)
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [isinstance(layer, FrozenConv2d) for layer in module] == [False, False, True, False, False]


def test_of_a_small_input_torch_s_own_convolution_is_faster_and_taken(monkeypatch):
    layer = nn.Conv2d(16, 16, 3, padding=1).requires_grad_(False)
    lighten(layer)
    names = {}
    for least in (1, 16 * 64, 16 * 64 + 1):
        monkeypatch.setattr(frozen, "WORTH_IT", least)
        names[least] = type(layer(torch.randn(1, 16, 8, 8, requires_grad=True)).grad_fn).__name__
    assert names == {1: "_Conv2dBackward", 16 * 64: "_Conv2dBackward", 16 * 64 + 1: "ConvolutionBackward0"}
