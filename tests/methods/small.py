"""Denoisers and noise of a few numbers, for tests of single methods."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiTTransformer2DModel, UNet2DModel
from torch import Tensor


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Return the normal noise of a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unet_without_attention() -> UNet2DModel:
    """Return a U-Net of residual blocks alone."""
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )


def transformer_without_text() -> Any:
    """Return a DiT of two blocks and ten classes, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dit = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            sample_size=8,
            num_embeds_ada_norm=10,
        )
    return dit.requires_grad_(False).eval()
