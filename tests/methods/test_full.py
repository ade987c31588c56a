"""Full tuning: what it chooses, in which precision, and what it gives back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import TargetError
from inlay.methods import Full, Lora
from tests.contracts.bases import Snapshot, outputs, perturb, tiny


def test_by_default_the_whole_denoiser_trains():
    components = tiny()
    chosen = Full().attach(components).parameters()
    assert {id(p) for p in chosen.values()} == {id(p) for p in components["unet"].parameters()}
    assert list(chosen) == [f"unet.{name}" for name, _ in components["unet"].named_parameters()]


def test_a_pattern_chooses_by_what_a_name_contains():
    chosen = Full(components=("unet", "text_encoder"), parameters=r"attn2\.to_[kv]|layer_norm").attach(tiny())
    unet = {name for name in chosen.parameters() if name.startswith("unet.")}
    text = {name for name in chosen.parameters() if name.startswith("text_encoder.")}
    assert unet | text == set(chosen.parameters())
    assert len(unet) == 4 * 2  # a key and a value matrix in each of four transformer blocks
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in unet)
    assert len(text) == 2 * 2 * 2 + 2  # two norms in two layers and the final one, weight and bias each
    assert all("layer_norm" in name for name in text)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        (Full(), 859_520_964),
        (Full(components=("unet", "text_encoder")), 859_520_964 + 123_060_480),
        # Custom Diffusion: keys and values of cross-attention, from 768 text channels to the width of each of the 16
        # transformers: 5 of 320, 5 of 640 and 6 of 1280 channels
        (Full(parameters=r"attn2\.to_[kv]"), 2 * 768 * (5 * 320 + 5 * 640 + 6 * 1280)),
    ],
)
def test_published_sizes_on_stable_diffusion_1(method: Full, count: int):
    settings = BaseSettings(model="sd-v1.4")
    parts = read_architecture(settings, locate(settings, weights=False)).meta()
    assert sum(parameter.numel() for parameter in method.attach(parts).parameters().values()) == count


def test_the_base_s_own_precision_comes_back_with_disabling_and_detaching():
    components: dict[str, Any] = {"unet": nn.Linear(3, 2).to(torch.bfloat16).requires_grad_(False)}
    layer, x = components["unet"], torch.ones(1, 3)
    before, snapshot = layer(x.to(torch.bfloat16)), Snapshot(components)
    attachment = Full().attach(components)
    perturb(attachment)
    layer(x).sum().backward()
    with attachment.disabled():
        assert torch.equal(layer(x.to(torch.bfloat16)), before)
    assert layer.weight.dtype == torch.float32
    assert layer.weight.grad is not None
    attachment.detach()
    snapshot.assert_same(components)


def test_names_do_not_depend_on_what_is_stacked_before():
    alone = Full(parameters="attn2").attach(tiny())
    components = tiny()
    lora = Lora(rank=2).attach(components)
    stacked = Full(parameters=r"attn2\.to_(q|k|v|out\.0)\.").attach(components)
    assert stacked.parameters().keys() == alone.parameters().keys()
    assert not {id(p) for p in stacked.parameters().values()} & {id(p) for p in lora.parameters().values()}


def test_merging_keeps_the_tuned_weights_and_freezes_them():
    components = tiny()
    attachment = Full().attach(components)
    perturb(attachment)
    tuned = outputs(components)
    attachment.merge()
    assert torch.equal(outputs(components), tuned)
    assert not any(p.requires_grad for p in components["unet"].parameters())
    assert attachment.parameters() == {}


def test_a_pattern_that_is_found_nowhere_is_refused():
    components = tiny()
    snapshot = Snapshot(components)
    with pytest.raises(TargetError, match=r"method\.parameters='attn3' is found in no name"):
        Full(parameters="attn3").attach(components)
    snapshot.assert_same(components)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parameters": "attn["}, r"'attn\[' is no regular expression"),
        ({"components": []}, "at least 1 item"),
        ({"components": ["vae"]}, "'text_encoder' or 'text_encoder_2'"),
    ],
)
def test_impossible_settings_are_refused(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Full(**given)
