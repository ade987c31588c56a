"""Hypernetworks: the networks as A1111 builds them, where they act, their strength and their size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.methods import Hypernetwork
from tests.contracts.bases import outputs, perturb, tiny
from tests.methods.small import noise


def numbered(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


NETWORKS: list[tuple[Hypernetwork, list[nn.Module]]] = [
    (Hypernetwork(), [nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)]),
    (Hypernetwork(activation="linear"), [nn.Linear(32, 64), nn.Linear(64, 32)]),
    (
        Hypernetwork(activation="swish", activate_output=True),
        [nn.Linear(32, 64), nn.Hardswish(), nn.Linear(64, 32), nn.Hardswish()],
    ),
    (
        Hypernetwork(
            layer_structure=(1, 2, 1.5, 1), activation="leakyrelu", layer_norm=True, dropout_structure=(0, 0.3, 0.3, 0)
        ),
        [
            *(nn.Linear(32, 64), nn.LeakyReLU(), nn.LayerNorm(64), nn.Dropout(0.3)),
            *(nn.Linear(64, 48), nn.LeakyReLU(), nn.LayerNorm(48), nn.Dropout(0.3)),
            *(nn.Linear(48, 32), nn.LayerNorm(32)),
        ],
    ),
    (Hypernetwork(activation="softsign"), [nn.Linear(32, 64), nn.Softsign(), nn.Linear(64, 32)]),
]


@pytest.mark.parametrize(("method", "layers"), NETWORKS)
def test_a_network_is_a1111s_layer_by_layer(method: Hypernetwork, layers: list[nn.Module]):
    components = tiny()
    attachment = method.attach(components)
    perturb(attachment)
    reference = nn.Sequential(*layers).eval()
    inputs: dict[str, Tensor] = {}
    to_k = components["unet"].mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    to_k.register_forward_pre_hook(lambda layer, given: inputs.update(found=given[0]))
    outputs(components)
    with attachment.disabled():
        tuned = inputs["found"]
        outputs(components)
    reference.load_state_dict(numbered(attachment.state(), "unet.32.key.linear."))
    torch.testing.assert_close(tuned, inputs["found"] + reference(inputs["found"]))
    assert set(numbered(attachment.state(), "unet.32.")) == {
        f"{kind}.linear.{name}" for kind in ("key", "value") for name in reference.state_dict()
    }


def changed_layers(method: Hypernetwork, second: bool = False) -> set[str]:
    """Return the last words of the layers whose input the method changes."""
    components = tiny(second)
    seen: dict[str, Tensor] = {}
    perturb(method.attach(components))
    found = set()
    for name, layer in components["unet"].named_modules():
        if name.endswith(("to_q", "to_k", "to_v")):
            given = noise(1, 3, layer.in_features)
            handle = layer.register_forward_pre_hook(lambda layer, inputs: seen.update(x=inputs[0]))
            layer(given)
            handle.remove()
            if not torch.equal(seen["x"], given):
                found.add(".".join(name.split(".")[-2:]) + f" {layer.in_features}")
    return found


def test_cross_leaves_self_attention_of_the_same_width_alone():
    assert changed_layers(Hypernetwork()) == {"attn2.to_k 32", "attn2.to_v 32"}
    everything = {"attn1.to_k 32", "attn1.to_v 32", "attn1.to_k 64", "attn1.to_v 64", "attn2.to_k 32", "attn2.to_v 32"}
    assert changed_layers(Hypernetwork(widths="all")) == everything
    assert changed_layers(Hypernetwork(widths=(32,))) == {name for name in everything if name.endswith("32")}
    assert changed_layers(Hypernetwork(), second=True) == {"attn2.to_k 64", "attn2.to_v 64"}


def test_strength_scales_the_effect_and_training_ignores_it():
    components = tiny()
    unet = components["unet"]
    attachment: Any = Hypernetwork(strength=0.5).attach(components)
    perturb(attachment)
    half = outputs(components)
    attachment.strength = 1
    whole = outputs(components)
    assert not torch.allclose(half, whole)
    attachment.strength = 0
    with attachment.disabled():
        base = outputs(components)
    assert torch.equal(outputs(components), base)
    attachment.strength = 0.5
    assert torch.equal(outputs(components), half)
    unet.train()
    torch.testing.assert_close(outputs(components), whole)


def test_dropout_acts_in_training_only():
    components = tiny()
    perturb(Hypernetwork(dropout_structure=(0, 0.5, 0)).attach(components))
    assert torch.equal(outputs(components), outputs(components))
    components["unet"].train()
    assert not torch.equal(outputs(components), outputs(components))


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("normal", 0.01),
        ("xavier_uniform", (2 / 96) ** 0.5),
        ("xavier_normal", (2 / 96) ** 0.5),
        ("kaiming_uniform", (2 / 32) ** 0.5),
        ("kaiming_normal", (2 / 32) ** 0.5),
    ],
)
def test_initialisations(init: Any, deviation: float):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = Hypernetwork(init=init, layer_norm=True)
        state = method.attach(tiny()).state()
    assert state["unet.32.key.linear.0.weight"].std().item() == pytest.approx(deviation, rel=0.05)
    assert state["unet.32.key.linear.2.weight"].std().item() == pytest.approx(0.01, rel=0.3)
    assert all((value == 0).all() for name, value in state.items() if name.endswith("bias"))
    assert not method.starts_at_base


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_structure": (1, 2)}, r"\[1.0, 2.0\] must begin and end with 1"),
        ({"layer_structure": (1,)}, "at least 2"),
        ({"dropout_structure": (0, 0.3)}, r"as long as layer_structure=\[1.0, 2.0, 1.0\]"),
        ({"dropout_structure": (0, 0.3, 0.3)}, "0 at both ends"),
        ({"activation": "sigmoid", "activate_output": True}, "init=zero promises that step 0 is the base"),
        ({"activation": "prelu"}, "Input should be 'linear'"),
        ({"widths": ()}, "at least 1"),
    ],
)
def test_what_makes_no_network_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Hypernetwork(**settings)


def test_the_file_says_what_a1111_wants_to_know():
    method = Hypernetwork(
        layer_structure=(1, 1.5, 2, 1), activation="elu", init="kaiming_normal", dropout_structure=(0, 0.3, 0, 0)
    )
    assert method.attach(tiny()).metadata() == {
        "hypernetwork.layer_structure": "[1, 1.5, 2, 1]",
        "hypernetwork.activation_func": '"elu"',
        "hypernetwork.is_layer_norm": "false",
        "hypernetwork.weight_initialization": '"KaimingNormal"',
        "hypernetwork.use_dropout": "true",
        "hypernetwork.dropout_structure": "[0.0, 0.3, 0.0, 0.0]",
        "hypernetwork.last_layer_dropout": "false",
        "hypernetwork.activate_output": "false",
    }


@pytest.mark.parametrize(
    ("method", "widths"),
    [
        (Hypernetwork(), [768]),
        (Hypernetwork(widths="all"), [320, 640, 768, 1280]),
        (Hypernetwork(widths=(320, 768)), [320, 768]),
    ],
)
def test_sizes_on_stable_diffusion(method: Hypernetwork, widths: list[int]):
    settings = BaseSettings(model="sd-v1.4")
    parts = read_architecture(settings, locate(settings, weights=False)).meta()
    found = sum(parameter.numel() for parameter in method.attach(parts).parameters().values())
    # Two networks a width, each with two matrices of w x 2w and biases of 2w and w.
    assert found == sum(2 * (4 * width * width + 3 * width) for width in widths)
