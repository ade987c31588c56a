"""The two forms of an adapter's function (arXiv 2303.18181): a bottleneck over tokens or over pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "sigmoid": F.sigmoid,
    "silu": F.silu,
    "identity": lambda x: x,
}


class Weights(nn.Module):
    """Weight and bias as a layer initialises them.

    No layer itself: methods that look for a base's linear layers, convolutions and norms must not take an adapter's
    for them.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d | nn.GroupNorm):
        """Take over a new layer's parameters."""
        super().__init__()
        assert layer.bias is not None
        self.weight, self.bias = layer.weight, layer.bias


class TokenBottleneck(nn.Module):
    """x [B, L, c_in] => s * (W2 act(W1 x + b1) + b2) [B, L, c_out]."""

    def __init__(self, c_in: int, width: int, c_out: int, activation: str, scale: float):
        """Initialise as PyTorch does."""
        super().__init__()
        self.down, self.up = Weights(nn.Linear(c_in, width)), Weights(nn.Linear(width, c_out))
        self._activation, self._scale = activation, scale

    def forward(self, x: Tensor) -> Tensor:
        """Compute in the weights' precision, or autocast's."""
        x = F.linear(x.to(self.down.weight.dtype), self.down.weight, self.down.bias)
        return self._scale * F.linear(ACTIVATIONS[self._activation](x), self.up.weight, self.up.bias)

    @staticmethod
    def size(c_in: int, width: int, c_out: int) -> int:
        """Return how many parameters it has."""
        return c_in * width + width + width * c_out + c_out


class PixelBottleneck(nn.Module):
    """x [B, c_in, h, w] => s * conv(act(conv(silu(norm(x))))) [B, c_out, h, w], 3x3 with padding 1."""

    def __init__(self, c_in: int, width: int, c_out: int, activation: str, scale: float, groups: int):
        """Initialise as PyTorch does; ``groups`` must divide ``c_in``."""
        super().__init__()
        self.norm = Weights(nn.GroupNorm(groups, c_in))
        self.down = Weights(nn.Conv2d(c_in, width, 3, padding=1))
        self.up = Weights(nn.Conv2d(width, c_out, 3, padding=1))
        self._activation, self._scale, self._groups = activation, scale, groups

    def forward(self, x: Tensor) -> Tensor:
        """Compute in the weights' precision, or autocast's."""
        x = F.group_norm(x.to(self.norm.weight.dtype), self._groups, self.norm.weight, self.norm.bias)
        x = F.conv2d(F.silu(x), self.down.weight, self.down.bias, padding=1)
        return self._scale * F.conv2d(ACTIVATIONS[self._activation](x), self.up.weight, self.up.bias, padding=1)

    @staticmethod
    def size(c_in: int, width: int, c_out: int) -> int:
        """Return how many parameters it has."""
        return 2 * c_in + 9 * c_in * width + width + 9 * width * c_out + c_out
