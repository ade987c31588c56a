"""DiffFit: what factors multiply, what else moves, when it merges, and its size."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import TargetError
from inlay.methods import Adapter, BitFit, DiffFit, Lora
from tests.contracts.bases import Snapshot, outputs, perturb, tiny
from tests.methods.small import noise, transformer_without_text, unet_without_attention

BLOCK = "mid_block.attentions.0.transformer_blocks.0"


def test_a_block_is_the_arithmetic_spelled_out():
    components = tiny()
    block: Any = copy.deepcopy(components["unet"].get_submodule(BLOCK))
    tuned = components["unet"].get_submodule(BLOCK)
    attachment = DiffFit().attach(components)
    perturb(attachment)
    state = attachment.state()
    own = {name.removeprefix(f"unet.{BLOCK}."): value for name, value in state.items() if BLOCK in name}
    for name, parameter in block.named_parameters():
        if name in own:
            parameter.data += own[name]
    x, context = noise(2, 6, 64), noise(2, 5, 32, seed=1)
    expected = x + (1 + own["attn1.scale"]) * block.attn1(block.norm1(x))
    expected = expected + (1 + own["attn2.scale"]) * block.attn2(block.norm2(expected), encoder_hidden_states=context)
    expected = expected + (1 + own["ff.scale"]) * block.ff(block.norm3(expected))
    torch.testing.assert_close(tuned(x, encoder_hidden_states=context), expected)


def test_it_owns_factors_biases_and_norms_and_no_other_weights():
    components = tiny()
    state = DiffFit().attach(components).state()
    bitfit = BitFit(scope="all", norms=True).attach(tiny()).state()
    factors = state.keys() - bitfit.keys()
    assert bitfit.keys() <= state.keys()
    blocks = [name.removeprefix("unet.").removesuffix(".ff.scale") for name in factors if name.endswith(".ff.scale")]
    assert factors == {f"unet.{block}.{child}.scale" for block in blocks for child in ("attn1", "attn2", "ff")}
    assert len(blocks) == 4
    assert all((value == 0).all() for value in state.values()), "changes begin at zero"


@pytest.mark.parametrize("scope", ["attention", "transformer-blocks", "transformers", "all"])
def test_the_scope_is_that_of_biases_and_norms(scope: Any):
    state = DiffFit(scope=scope).attach(tiny()).state()
    bitfit = BitFit(scope=scope, norms=True).attach(tiny()).state()
    assert len(state) == len(bitfit) + 4 * 3


@pytest.mark.parametrize("other", [Lora(rank=2), BitFit(), Adapter(width=3), DiffFit()], ids=lambda other: other.name)
def test_it_does_not_merge_where_another_method_would_escape_the_factors(other: Any):
    components = tiny()
    attachment = DiffFit().attach(components)
    second = other.attach(components)
    perturb(attachment)
    perturb(second, seed=4)
    both = outputs(components)
    with pytest.raises(TargetError, match=r"difffit: another method acts on the denoiser.*Merge or detach it first"):
        attachment.merge()
    assert torch.equal(outputs(components), both)
    second.detach()
    alone = outputs(components)
    attachment.merge()
    torch.testing.assert_close(outputs(components), alone, atol=2e-5, rtol=0)


def test_over_a_lora_that_has_merged_it_merges_too():
    components = tiny()
    snapshot = Snapshot(components)
    lora = Lora(rank=2, targets="everything").attach(components)
    attachment = DiffFit().attach(components)
    perturb(lora)
    perturb(attachment, seed=4)
    expected = outputs(components)
    lora.merge()
    attachment.merge()
    torch.testing.assert_close(outputs(components), expected, atol=4e-5, rtol=0)
    assert Snapshot(components).facts == snapshot.facts


def test_small_factors_are_not_lost_in_half_precision():
    components = tiny()
    components["unet"].to(torch.bfloat16)
    block: Any = components["unet"].get_submodule(BLOCK)
    x = noise(1, 64, 64).to(torch.bfloat16)
    base = block.ff(x)
    attachment = DiffFit().attach(components)
    attachment.parameters()[f"unet.{BLOCK}.ff.scale"].data.fill_(1 / 300)
    # 1 + 1/300 would be 1 in bf16. A number's neighbours are 1/256 to 1/128 of it away, so that a change by 1/300 takes
    # more than half of them to the next one.
    assert torch.tensor(1 + 1 / 300, dtype=torch.bfloat16) == 1
    assert (block.ff(x) != base).float().mean() > 0.3


def test_a_denoiser_without_transformer_blocks_is_refused():
    with pytest.raises(TargetError, match=r"difffit: the denoiser, a UNet2DModel, has no blocks"):
        DiffFit().attach({"unet": unet_without_attention()})


def test_it_acts_in_a_diffusion_transformer_and_merges_there():
    dit = transformer_without_text()
    arguments = {"timestep": torch.tensor([5]), "class_labels": torch.tensor([1])}
    base = dit(noise(1, 4, 8, 8), **arguments).sample
    attachment = DiffFit().attach({"unet": dit})
    assert torch.equal(dit(noise(1, 4, 8, 8), **arguments).sample, base)
    perturb(attachment)
    tuned = dit(noise(1, 4, 8, 8), **arguments).sample
    assert not torch.allclose(tuned, base)
    assert sum(name.endswith(".scale") for name in attachment.parameters()) == 2 * 2
    attachment.merge()
    torch.testing.assert_close(dit(noise(1, 4, 8, 8), **arguments).sample, tuned, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        # Three factors for each of the 12,480 channels; three layer norms a block are 37,440 weights beside 174,720
        # biases; the norms of all are 100,160 weights beside 343,684 biases.
        (DiffFit(scope="transformer-blocks"), 37_440 + 37_440 + 174_720),
        (DiffFit(), 37_440 + 100_160 + 343_684),
    ],
)
def test_sizes_on_stable_diffusion(method: DiffFit, count: int):
    settings = BaseSettings(model="sd-v1.4")
    parts = read_architecture(settings, locate(settings, weights=False)).meta()
    norms = [p for name, p in parts["unet"].named_parameters() if "norm" in name and name.endswith("weight")]
    if method.scope == "all":
        assert sum(p.numel() for p in norms) == 100_160
    assert sum(parameter.numel() for parameter in method.attach(parts).parameters().values()) == count
