"""Layers whose inputs are rotated before they compute: y = f(R x). inlay's own, where PEFT's lose what is below them.

PEFT's layers for BOFT and HRA rebuild the weight and pass by the layer that they wrap, and what else wraps it; and
BOFT's need a compiled CUDA extension for more than one butterfly factor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


class Rotation(nn.Module, BaseTunerLayer, ABC):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A linear layer or a 1 x 1 convolution with rotated inputs. To those who look for PEFT's layers, it is one."""

    def __init__(self, base_layer: nn.Module):
        """Wrap a layer."""
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    @abstractmethod
    def rotate(self, x: Tensor) -> Tensor:
        """Rotate [..., inputs] to the same shape, in float32."""

    def scale(self) -> Tensor | None:
        """Return factors [outputs] of what comes out, without the bias; None for none."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the layer gives for rotated inputs."""
        if self.disable_adapters:
            return self.base_layer(x)
        base: Any = self.get_base_layer()
        across = isinstance(base, nn.Conv2d)
        rows = x.movedim(1, -1) if across else x
        rotated = self.rotate(rows.to(torch.float32)).to(x.dtype)
        output = self.base_layer(rotated.movedim(-1, 1).contiguous() if across else rotated)
        scale = self.scale()
        if scale is None:
            return output
        # Written as a change, so that factors of 1 change nothing, not even by rounding.
        shape = (-1, 1, 1) if across else (-1,)
        without_bias = output - self._bias(x).view(shape)
        return output + (without_bias * (scale - 1).view(shape)).to(output.dtype)

    def _bias(self, x: Tensor) -> Tensor:
        """Return what comes out for nothing, [outputs]; what is below may have changed the layer's own bias."""
        base: Any = self.get_base_layer()
        if self.base_layer is base:
            return x.new_zeros(1) if base.bias is None else base.bias
        return self.base_layer(x.new_zeros((1, len(x[0]), 1, 1) if isinstance(base, nn.Conv2d) else (1, x.shape[-1])))

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Rotate the weight instead, each output's row of it, and scale its rows."""
        base: Any = self.get_base_layer()
        weight = base.weight.detach()
        rows = weight.flatten(1).to(torch.float32)
        transposed = self.rotate(torch.eye(rows.shape[1], device=rows.device)).detach()  # rows x become (R x)^T
        merged = rows @ transposed.T
        scale = self.scale()
        if scale is not None:
            merged = scale.detach()[:, None] * merged
        base.weight.data = merged.reshape(weight.shape).to(weight.dtype)
