"""BitFit: which biases, what their changes do, and how many they are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import TargetError
from inlay.methods import BitFit, Full
from tests.contracts.bases import Snapshot, outputs, perturb, tiny


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("norms", [False, True])
def test_a_change_is_what_it_would_be_in_the_base(second: bool, norms: bool):
    components, edited = tiny(second), tiny(second)
    attachment = BitFit(scope="all", norms=norms).attach(components)
    perturb(attachment)
    own = dict(edited["unet"].named_parameters())
    for name, change in attachment.state().items():
        own[name.removeprefix("unet.")].data += change
    torch.testing.assert_close(outputs(components), outputs(edited), atol=2e-5, rtol=0)


def test_all_means_every_bias_and_norms_every_norm():
    components = tiny()
    names = {f"unet.{name}" for name, _ in components["unet"].named_parameters()}
    norms = {
        f"unet.{name}.weight"
        for name, module in components["unet"].named_modules()
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm))
    }
    biases = {name for name in names if name.endswith(".bias")}
    assert BitFit(scope="all").attach(tiny()).parameters().keys() == biases
    assert BitFit(scope="all", norms=True).attach(tiny()).parameters().keys() == biases | norms


def test_scopes_contain_each_other():
    scopes: list[Any] = ["attention", "transformer-blocks", "transformers", "all"]
    names = [BitFit(scope=scope).attach(tiny()).parameters().keys() for scope in scopes]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(names))
    assert all(".attn1.to_out.0.bias" in name or ".attn2.to_out.0.bias" in name for name in names[0])
    assert any(name.endswith(".proj_in.bias") for name in names[2] - names[1])
    assert "unet.conv_in.bias" in names[3] - names[2]


def test_the_base_stays_frozen_and_is_not_copied():
    components = tiny()
    before = Snapshot(components).tensors
    attachment = BitFit(scope="all").attach(components)
    perturb(attachment)
    own = dict(components["unet"].named_parameters())
    for name, (parameter, copied) in before.items():
        if name.startswith("unet."):
            assert own[name.removeprefix("unet.")] is parameter
            assert not parameter.requires_grad
            assert torch.equal(parameter, copied)


def test_beside_full_tuning_it_adds_to_the_bias_that_trains():
    components = tiny()
    full = Full(parameters="bias").attach(components)
    bitfit = BitFit(scope="all").attach(components)
    assert full.parameters().keys() == bitfit.parameters().keys()
    perturb(full, 1)
    perturb(bitfit, 2)
    both = outputs(components)
    bitfit.merge()
    torch.testing.assert_close(outputs(components), both, atol=2e-5, rtol=0)


def test_merging_keeps_the_bases_precision():
    components = {name: root.to(torch.bfloat16) for name, root in tiny().items()}
    attachment = BitFit().attach(components)
    perturb(attachment)
    attachment.merge()
    assert {parameter.dtype for parameter in components["unet"].parameters()} == {torch.bfloat16}


def test_a_scope_that_the_denoiser_lacks_is_refused_with_the_others():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    with pytest.raises(TargetError, match=r"no BasicTransformerBlock; scopes: attention, .*transformers, all"):
        BitFit().attach({"unet": net})
    with pytest.raises(TargetError, match="scope=all: the denoiser has no layers with a bias"):
        BitFit(scope="all").attach({"unet": net[1:]})
    assert BitFit(scope="all").attach({"unet": net}).parameters().keys() == {"unet.0.bias"}


@pytest.mark.parametrize(
    ("method", "count"),
    [
        # One bias of the block's width for each output projection.
        (BitFit(scope="attention"), 2 * 12_480),
        # Three norms, two output projections, the feed-forward's gated 8 and its output: 14 widths a block.
        (BitFit(), 174_720),
        # And the norm and the two projections around each block.
        (BitFit(scope="transformers"), 212_160),
        (BitFit(scope="all"), 343_684),
        (BitFit(norms=True), 174_720 + 3 * 12_480),
    ],
)
def test_sizes_on_stable_diffusion(method: BitFit, count: int):
    settings = BaseSettings(model="sd-v1.4")
    parts = read_architecture(settings, locate(settings, weights=False)).meta()
    assert sum(parameter.numel() for parameter in method.attach(parts).parameters().values()) == count
