"""How LoRA's A and B begin out of the weight, of convolutions too.

PEFT takes B0 A0 out of the base's weight, which then is rounded and no longer the base's. Here the weight stays as it
is, and the update is the difference B A - B0 A0: nothing at the start, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraVariant
from torch import Tensor, nn

from inlay.methods.peft_layers import ADAPTER


def pissa(layer: Any) -> None:
    """Begin at the principal singular values and vectors of the weight (arXiv 2404.02948, equations 2 and 3)."""

    def halves(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        root = s[:rank].sqrt()
        return root[:, None] * vh[:rank], u[:, :rank] * root

    _begin(layer, halves)


def olora(layer: Any) -> None:
    """Begin at the first rows and columns of the weight's QR decomposition (arXiv 2406.01775, section 3)."""

    def halves(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        q, r = torch.linalg.qr(weight)
        return r[:rank], q[:, :rank]

    _begin(layer, halves)


def _begin(layer: Any, halves: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> None:
    """Set A and B to parts of a layer's weight [outputs, inputs], and let the update be what they change since then."""
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    weight = layer.get_base_layer().weight.detach()
    if not weight.is_meta:
        rank, scale = a.shape[0], layer.scaling[ADAPTER] ** 0.5
        first, second = halves(weight.flatten(1), rank)
        # A layer with fewer inputs or outputs than the rank has no more directions; zeros add none.
        a.data.zero_().flatten(1)[: first.shape[0]] = first / scale
        b.data.zero_().flatten(1)[:, : second.shape[1]] = second / scale
    layer.register_buffer("lora_A_start", a.detach().clone())
    layer.register_buffer("lora_B_start", b.detach().clone())
    layer.lora_variant[ADAPTER] = SinceStart()


class SinceStart(LoraVariant):
    """The update s (B A - B0 A0) in PEFT's LoRA layers."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **kwargs: Any) -> Tensor:
        """Add the update of x to ``result``."""
        down, up = module.lora_A[active_adapter], module.lora_B[active_adapter]
        x = module.lora_dropout[active_adapter](x.to(down.weight.dtype))
        then = _same(up, _same(down, x, module.lora_A_start), module.lora_B_start)
        return result + ((up(down(x)) - then) * module.scaling[active_adapter]).to(result.dtype)

    @staticmethod
    def merge_unsafe(module: Any, active_adapter: str, orig_weight: Tensor) -> None:
        """Add the update to a weight in place."""
        since = module.lora_B[active_adapter].weight.flatten(1) @ module.lora_A[active_adapter].weight.flatten(1)
        then = module.lora_B_start.flatten(1) @ module.lora_A_start.flatten(1)
        orig_weight.data += (since - then).reshape(orig_weight.shape) * module.scaling[active_adapter]


def _same(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Return what a linear or convolutional layer would give with another weight."""
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight, None)
    return F.linear(x, weight)
