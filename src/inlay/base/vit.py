"""A plain vision transformer that denoises (Hang et al. 2023, arXiv 2303.09556, section 4.1).

Tokens are [time, class, patches] with learned absolute positions; pre-norm blocks; no long skips and no final norm.
Shapes: B pictures [B, C, h, w] in patches of p x p; N = (h / p) (w / p) patches; D the width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class ViT(ModelMixin, ConfigMixin):
    """The denoiser. ``save_pretrained`` and ``from_pretrained`` are those of diffusers' models."""

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        channels: int = 3,
        patch: int = 2,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        dropout: float = 0.0,
        time: str = "learned",
        timesteps: int = 1000,
        classes: int = 0,
    ):
        """Initialise.

        Args:
            sample_size: h = w.
            channels: C.
            patch: p.
            depth: blocks.
            width: D.
            heads: attention heads; must divide D.
            dropout: probability in every block's two outputs.
            time: `learned`, one vector a timestep, or `sinusoidal`, waves and a small network.
            timesteps: rows of the learned vectors.
            classes: K; 0 for a model without classes. Class number K is the one that guidance leads away from.
        """
        super().__init__()
        self.gradient_checkpointing = False
        self.patches = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.time_embedding = nn.Embedding(timesteps, width) if time == "learned" else Waves(width)
        self.class_embedding: nn.Embedding | None = nn.Embedding(classes + 1, width) if classes else None
        tokens = (sample_size // patch) ** 2 + (2 if classes else 1)
        self.positions = nn.Parameter(torch.empty(1, tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.output = nn.Linear(width, channels * patch**2)
        self._start()

    def _start(self) -> None:
        """Begin as BEiT does (arXiv 2106.08254, section 2.5): small weights, smaller the deeper they add up."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.positions, std=0.02)
        with torch.no_grad():
            for number, block in enumerate(self.blocks, 1):
                assert isinstance(block, Block)
                for layer in (block.attention.out, block.ff[2]):
                    layer.weight.div_(math.sqrt(2 * number))  # pyright: ignore[reportOperatorIssue, reportCallIssue]
        # Nothing is predicted at first: the loss starts at the mean square of the target.
        nn.init.zeros_(self.output.weight)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Return the prediction, in a tuple as diffusers' models do.

        Args:
            sample: [B, C, h, w].
            timestep: int64 [B].
            class_labels: int64 [B], of a model with classes.
            return_dict: must be False.
        """
        side = sample.shape[-1] // self.config["patch"]
        tokens = [self.time_embedding(timestep)[:, None]]
        embedding = self.class_embedding
        if embedding is not None:
            tokens.append(embedding(class_labels)[:, None])
        extra = len(tokens)
        tokens.append(self.patches(sample).flatten(2).transpose(1, 2))
        hidden = torch.cat([part.to(tokens[-1].dtype) for part in tokens], 1) + self.positions
        again: Any = self._gradient_checkpointing_func if self.gradient_checkpointing else None
        for block in self.blocks:
            hidden = again(block, hidden) if again is not None and torch.is_grad_enabled() else block(hidden)
        return (self._joined(self.output(hidden[:, extra:]), side),)

    def _joined(self, patches: Tensor, side: int) -> Tensor:
        """Patches [B, N, C p p] => [B, C, h, w]."""
        channels, patch = self.config["channels"], self.config["patch"]
        grid = patches.view(len(patches), side, side, channels, patch, patch)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), channels, side * patch, side * patch)


class Block(nn.Module):
    """Attention, then a network of four times the width, each after a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float):
        """Initialise for tokens [B, N, D]."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Tokens => tokens, [B, N, D]."""
        hidden = hidden + self.dropout(self.attention(self.norm1(hidden)))
        return hidden + self.dropout(self.ff(self.norm2(hidden)))


class Attention(nn.Module):
    """Self-attention between all tokens."""

    def __init__(self, width: int, heads: int):
        """Initialise for tokens [B, N, D]."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Tokens => tokens, [B, N, D]."""
        batch, count, width = hidden.shape
        parts = self.qkv(hidden).view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return self.out(mixed.transpose(1, 2).reshape(batch, count, width))


class Waves(nn.Module):
    """Sines and cosines of the timestep (Vaswani et al. 2017, arXiv 1706.03762) and a small network."""

    def __init__(self, width: int):
        """Initialise for vectors of ``width`` numbers."""
        super().__init__()
        self.width = width
        self.network = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: Tensor) -> Any:
        """Timesteps [B] => [B, D]."""
        half = self.width // 2
        scales = torch.exp(-math.log(10_000) / half * torch.arange(half, device=timestep.device))
        angles = timestep[:, None].float() * scales
        dtype = next(self.parameters()).dtype
        return self.network(torch.cat([angles.cos(), angles.sin()], 1).to(dtype))
