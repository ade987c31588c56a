"""Which blocks and positions are found in denoisers of several families, on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel, PixArtTransformer2DModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.methods.blocks import find_blocks

PATH = ["SA_in", "SA_out", "CA_in", "CA_c", "CA_out", "FFN_in", "FFN_out", "Trans_out"]


def published(name: str) -> Any:
    settings = BaseSettings(model=name)
    with torch.device("meta"):
        return read_architecture(settings, locate(settings, weights=False)).build("unet")


def small_unet(**settings: Any) -> Any:
    defaults = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 24,
        "norm_num_groups": 8,
        "layers_per_block": 1,
        "attention_head_dim": 4,
    }
    with torch.device("meta"):
        return UNet2DConditionModel(**{**defaults, **settings})


@pytest.mark.parametrize(("name", "text"), [("sd-v1.4", 768), ("sd-v2.1", 1024)])
def test_stable_diffusion(name: str, text: int):
    unet = published(name)
    blocks = find_blocks(unet, "transformer")
    assert len(blocks) == 16
    assert sum(block.sites["SA_in"].width for block in blocks) == 12_480
    for block in blocks:
        assert unet.get_submodule(block.name) is block.module
        assert list(block.sites) == PATH
        assert block.why_not == {}
        assert {site.width for position, site in block.sites.items() if position != "CA_c"} == {block.module.dim}
        assert block.sites["CA_c"].width == text
        readable_only = [position for position, site in block.sites.items() if not site.writable]
        assert readable_only == ["SA_out", "CA_out", "FFN_out"]
    residual = find_blocks(unet, "residual")
    assert len(residual) == 22
    assert not any("sampler" in block.name for block in residual)
    assert [list(block.sites) for block in residual] == [["Res_in", "Res_out"]] * 22
    assert [block.groups for block in residual] == [{"Res_in": 32, "Res_out": 32}] * 22
    last = next(block for block in residual if block.name == "up_blocks.3.resnets.0")
    assert (last.sites["Res_in"].width, last.sites["Res_out"].width) == (960, 320)


def test_sdxl_has_several_transformer_blocks_in_one_attention():
    unet = small_unet(
        transformer_layers_per_block=(1, 3),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    )
    names = [block.name for block in find_blocks(unet, "transformer")]
    assert len(names) == 3 * (1 + 1 + 2)
    assert "mid_block.attentions.0.transformer_blocks.2" in names


def test_residual_blocks_that_change_the_resolution_are_left_out():
    plain, resampling = small_unet(), small_unet(resnet_time_scale_shift="scale_shift")
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64),
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            cross_attention_dim=24,
            norm_num_groups=8,
            layers_per_block=1,
            attention_head_dim=4,
        )
    assert [len(find_blocks(each, "residual")) for each in (plain, resampling)] == [8, 8]
    names = [block.name for block in find_blocks(unet, "residual")]
    assert len(names) == 8
    assert not any("sampler" in name for name in names)
    assert find_blocks(unet, "transformer") == []


def test_groups_are_the_blocks_own():
    unet = small_unet(block_out_channels=(24, 48), norm_num_groups=6)
    assert {block.groups["Res_in"] for block in find_blocks(unet, "residual")} == {6}


def test_dit():
    with torch.device("meta"):
        dit = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=3, sample_size=8)
    blocks = find_blocks(dit, "transformer")
    assert [block.name for block in blocks] == [f"transformer_blocks.{n}" for n in range(3)]
    assert list(blocks[0].sites) == ["SA_in", "FFN_in", "Trans_out"]
    assert [site.writable for site in blocks[0].sites.values()] == [True, False, True]
    assert "ada_norm_zero" in blocks[0].why_not["FFN_in"]
    assert blocks[0].why_not["CA_out"] == "it has no cross-attention"
    assert find_blocks(dit, "residual") == []


def test_pixart():
    with torch.device("meta"):
        pixart = PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=2, cross_attention_dim=16, sample_size=8,
            caption_channels=12,
        )  # fmt: skip
    blocks = find_blocks(pixart, "transformer")
    assert len(blocks) == 2
    assert list(blocks[0].sites) == ["SA_in", "CA_in", "CA_c", "CA_out", "FFN_in", "Trans_out"]
    assert [position for position, site in blocks[0].sites.items() if not site.writable] == ["CA_in", "CA_out"]
    assert blocks[0].why_not.keys() == {"SA_out", "CA_in", "FFN_out"}


def block(**settings: Any) -> Any:
    [found] = find_blocks(
        torch.nn.Sequential(BasicTransformerBlock(16, 2, 8, **{"cross_attention_dim": 12, **settings})), "transformer"
    )
    return found


def test_other_transformer_blocks():
    assert list(block(norm_type="ada_norm", num_embeds_ada_norm=4).sites) == PATH
    assert block(only_cross_attention=True).sites["CA_c"].width == 12
    twice = block(double_self_attention=True)
    assert "CA_c" not in twice.sites
    assert "sees no text" in twice.why_not["CA_c"]
    alone = block(cross_attention_dim=None)
    assert list(alone.sites) == ["SA_in", "SA_out", "FFN_in", "FFN_out", "Trans_out"]
    assert alone.sites["FFN_in"].adds_to == "SA_in"
    gligen = block(attention_type="gated")
    assert not gligen.sites["CA_in"].writable
    assert "GLIGEN" in gligen.why_not["CA_in"]
    assert gligen.sites["FFN_in"].writable
