"""Prefix tuning: attention over prefixes and masks, by every backend, and its size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor
from torch import Tensor

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import TargetError
from inlay.methods import Lora, Prefix
from tests.contracts.bases import outputs, perturb, tiny
from tests.methods.small import noise, unet_without_attention

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"
PROCESSORS = [AttnProcessor(), AttnProcessor2_0(), SlicedAttnProcessor(1)]
every_backend = pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: type(processor).__name__)


def attended(layer: Any, x: Tensor, context: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention head by head, with ``key`` and ``value`` [length, width] before those of the context."""
    queries, keys, values = layer.to_q(x), layer.to_k(context), layer.to_v(context)
    keys = torch.cat([key.expand(len(x), -1, -1), keys], dim=1)
    values = torch.cat([value.expand(len(x), -1, -1), values], dim=1)
    if mask is None:
        mask = torch.zeros(len(x), context.shape[1])
    mask = torch.cat([torch.zeros(len(x), len(key)), mask], dim=1)
    heads = []
    for part in torch.arange(queries.shape[-1]).chunk(layer.heads):
        scores = queries[..., part] @ keys[..., part].transpose(1, 2) / len(part) ** 0.5 + mask[:, None]
        heads.append(scores.softmax(-1) @ values[..., part])
    return layer.to_out[0](torch.cat(heads, dim=-1))


@every_backend
@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_attends_to_its_vectors_and_to_what_its_mask_lets_through(processor: Any, masked: bool):
    components = tiny()
    components["unet"].set_attn_processor(processor)
    layer = components["unet"].get_submodule(LAYER)
    x, context = noise(2, 6, 64), noise(2, 5, 32, seed=1)
    mask = torch.tensor([[0, 0, -10000.0, 0, -1.5], [-10000.0, 0, 0, 0, 0]]) if masked else None
    key, value = noise(3, 64, seed=2), noise(3, 64, seed=3)
    expected = attended(layer, x, context, key, value, mask)
    attachment = Prefix(length=3).attach(components)
    attachment.load({**attachment.state(), f"unet.{LAYER}.key": key, f"unet.{LAYER}.value": value})
    found = layer(x, encoder_hidden_states=context, attention_mask=None if mask is None else mask[:, None])
    torch.testing.assert_close(found, expected)


def test_a_mask_of_yes_and_no_lets_the_vectors_through():
    components = tiny()
    layer = components["unet"].get_submodule(LAYER)
    x, context = noise(2, 6, 64), noise(2, 5, 32, seed=1)
    perturb(Prefix(length=3).attach(components))
    some = torch.tensor([[True, True, False, True, False]] * 2)
    found = layer(x, encoder_hidden_states=context, attention_mask=some[:, None])
    torch.testing.assert_close(found, layer(x, encoder_hidden_states=context[:, [0, 1, 3]]))


def predict(unet: Any, states: Tensor, mask: Tensor | None = None) -> Tensor:
    noisy = noise(2, 4, 8, 8, seed=5)
    return unet(noisy, torch.tensor([20, 900]), states, encoder_attention_mask=mask, return_dict=False)[0]


@every_backend
def test_words_that_are_masked_are_as_words_that_are_not_there(processor: Any):
    components = tiny()
    unet = components["unet"]
    unet.set_attn_processor(processor)
    states = noise(2, 7, 32)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]] * 2)
    one, two = Prefix(length=2).attach(components), Prefix(length=3, attention="both").attach(components)
    perturb(one, 1)
    perturb(two, 2)
    Lora(rank=2).attach(components)
    tuned = predict(unet, states[:, :4])
    torch.testing.assert_close(predict(unet, states, mask), tuned)
    with one.disabled():
        torch.testing.assert_close(predict(unet, states, mask), predict(unet, states[:, :4]))
    one.detach()
    torch.testing.assert_close(predict(unet, states, mask), predict(unet, states[:, :4]))
    assert not torch.allclose(predict(unet, states, mask), tuned)
    two.detach()
    assert "prepare_attention_mask" not in vars(unet.get_submodule(LAYER))


def test_a_quiet_prefix_begins_with_values_of_zero_and_a_normal_one_does_not():
    quiet, normal = Prefix(std=0.5).attach(tiny()).state(), Prefix(std=0.5, init="normal").attach(tiny()).state()
    for name, vectors in quiet.items():
        assert vectors.shape == (10, 64 if "mid_block" in name else 32)
        assert (vectors == 0).all() if name.endswith(".value") else 0.4 < vectors.std() < 0.6
    assert all(0.4 < vectors.std() < 0.6 for vectors in normal.values())


def test_a_network_can_be_folded_into_the_vectors_that_it_makes():
    components = tiny()
    attachment = Prefix(length=3, attention="both", reparametrise=4).attach(components)
    perturb(attachment)
    expected = outputs(components)
    folded = attachment.fold()
    assert torch.equal(outputs(components), expected)
    assert folded.method == Prefix(length=3, attention="both")
    assert attachment.parameters() == {}
    other = tiny()
    again = folded.method.attach(other)
    again.load(folded.state())
    assert torch.equal(outputs(other), expected)


def test_fused_projections_are_refused_instead_of_left_out():
    components = tiny()
    Prefix().attach(components)
    components["unet"].fuse_qkv_projections()
    with pytest.raises(TargetError, match=r"attn2: its projections are fused .* call unfuse_qkv_projections\(\)"):
        outputs(components)
    with pytest.raises(TargetError, match="its projections are fused"):
        Prefix().attach(components)


def test_a_denoiser_without_text_is_refused():
    with pytest.raises(TargetError, match="the denoiser has no cross-attention"):
        Prefix().attach({"unet": unet_without_attention()})


@pytest.mark.parametrize(
    ("method", "count"),
    [
        (Prefix(length=1), 24_960),
        (Prefix(length=10), 249_600),
        (Prefix(length=10, attention="self"), 249_600),
        (Prefix(length=10, attention="both"), 499_200),
        # Inputs, hidden layer, and heads with weight and bias for 24,960 outputs.
        (Prefix(length=10, reparametrise=64), 10 * 64 + 64 * 65 + 65 * 24_960),
    ],
)
def test_sizes_on_stable_diffusion(method: Prefix, count: int):
    settings = BaseSettings(model="sd-v1.4")
    parts = read_architecture(settings, locate(settings, weights=False)).meta()
    assert sum(parameter.numel() for parameter in method.attach(parts).parameters().values()) == count
