"""LoRAs from two models: against explicit differences, and with what is left out said."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from inlay.artifacts.layers import LowRank
from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.base.stable_diffusion import StableDiffusion
from inlay.errors import ConfigError
from inlay.run.extract import extract
from inlay.run.weights import load_whole, weighted_layers
from tests.tiny import make_tiny_pipeline

LINEAR = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONVOLUTION = "unet.down_blocks.0.resnets.0.conv1"
TEXT = "text_encoder.text_model.encoder.layers.1.self_attn.q_proj"


def noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pair(tiny_base: Path) -> tuple[StableDiffusion, StableDiffusion]:
    """A base with a change of rank 2 in three layers, and the base itself."""
    tuned, original = (load_base(BaseSettings(model=str(tiny_base))) for _ in range(2))
    layers = weighted_layers(tuned.components)
    for seed, name in enumerate((LINEAR, CONVOLUTION, TEXT)):
        weight = layers[name].weight
        assert isinstance(weight, nn.Parameter)
        flat = weight.detach().flatten(1)
        change = noise((flat.shape[0], 2), seed) @ noise((2, flat.shape[1]), seed + 9)
        weight.data += 0.1 * change.reshape(weight.shape)
    return tuned, original


def test_a_difference_of_small_rank_is_found_whole(pair):
    tuned, original = pair
    found = extract(tuned, original, rank=3)
    assert set(found.updates.layers) == {LINEAR, CONVOLUTION, TEXT}
    assert found.relative_error < 1e-5
    assert found.left_out == {}
    assert found.left_out_share == 0
    assert (
        found.unchanged
        == len([x for x in weighted_layers(tuned.components).values() if isinstance(x, (nn.Linear, nn.Conv2d))]) - 3
    )
    ours, theirs = weighted_layers(tuned.components), weighted_layers(original.components)
    for name, update in found.updates.layers.items():
        assert isinstance(update, LowRank)
        assert update.rank == 3
        again = update.changed(theirs[name].weight)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(again, ours[name].weight.detach(), atol=1e-5, rtol=1e-5)


def test_energy_chooses_ranks_by_layer(pair):
    tuned, original = pair
    layers = weighted_layers(tuned.components)
    layers[LINEAR].weight.data += 1e-4 * noise(tuple(layers[LINEAR].weight.shape), 30)
    found = extract(tuned, original, energy=0.999)
    ranks = {name: product.rank for name, product in found.products.items()}
    assert ranks == {LINEAR: 2, CONVOLUTION: 2, TEXT: 2}
    assert 0 < found.products[LINEAR].relative_error < math.sqrt(0.001)


def test_what_a_lora_has_no_place_for_is_said(pair):
    tuned, original = pair
    tuned.unet.conv_in.bias.data += 0.5
    tuned.vae.encoder.conv_in.weight.data += 0.25
    found = extract(tuned, original, rank=2)
    assert found.left_out == pytest.approx(
        {
            "unet.conv_in.bias": 0.5 * math.sqrt(tuned.unet.conv_in.bias.numel()),
            "vae.encoder.conv_in.weight": 0.25 * math.sqrt(tuned.vae.encoder.conv_in.weight.numel()),
        },
        rel=1e-4,
    )
    outside = math.hypot(*found.left_out.values())
    whole = math.hypot(outside, *(product.norm for product in found.products.values()))
    assert found.left_out_share == pytest.approx(outside / whole)


def test_progress_is_told(pair):
    told = []
    extract(*pair, rank=1, progress=lambda done, total: told.append((done, total)))
    assert told[0][0] == 1
    assert told[-1][0] == told[-1][1] == len(told)


def test_equal_models_are_refused(tiny_base):
    one, other = (load_whole(tiny_base) for _ in range(2))
    with pytest.raises(ConfigError, match="do not differ in any linear or convolutional layer"):
        extract(one, other, rank=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second": True}, "hidden_act is quick_gelu and gelu; .*position_embedding.weight is 77 x 32 and 77 x 64"),
        ({"prediction_type": "v_prediction"}, "they predict epsilon and v_prediction"),
    ],
)
def test_other_architectures_are_refused_with_what_differs(tmp_path, tiny_base, change, message):
    other = make_tiny_pipeline(tmp_path / "other", **change)
    with pytest.raises(ConfigError, match=message):
        extract(load_whole(tiny_base), load_whole(other), rank=1)


def test_heads_differ_although_no_shape_does(tiny_base):
    one, other = (load_whole(tiny_base) for _ in range(2))
    other.unet.register_to_config(attention_head_dim=8)
    with pytest.raises(ConfigError, match="unet's attention_head_dim is 4 and 8"):
        extract(one, other, rank=1)
