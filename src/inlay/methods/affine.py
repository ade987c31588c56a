"""Layers of a method's own, which nobody who walks the base takes for the base's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Affine(nn.Module):
    """W x + b. It is no ``nn.Linear``: whoever looks for the base's linear layers must not find it."""

    def __init__(self, inputs: int, outputs: int):
        """Initialise as ``nn.Linear`` does."""
        super().__init__()
        layer = nn.Linear(inputs, outputs)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., inputs] to [..., outputs]."""
        return F.linear(x, self.weight, self.bias)


class Norm(nn.Module):
    """A layer norm that is no ``nn.LayerNorm``, for the same reason."""

    def __init__(self, width: int):
        """Begin with a weight of one."""
        super().__init__()
        layer = nn.LayerNorm(width)
        self.weight, self.bias, self._eps = layer.weight, layer.bias, layer.eps

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., width] to the same shape."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self._eps)
