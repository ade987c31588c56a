"""Orthogonal butterflies of a layer's inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inlay.methods.rotation import Rotation


class Butterfly(Rotation):
    """m block-diagonal rotations, each after a shuffle (arXiv 2311.06243, section 4); tensors as PEFT has them.

    Factor i = 0 ... m - 1 rotates in blocks of b that join half a block with the half that lies 2^i halves further on.
    """

    adapter_layer_names = ("boft_R", "boft_s")

    def __init__(self, base_layer: nn.Module, inputs: int, outputs: int, block: int, factors: int):
        """Begin with rotations by nothing and scales of 1."""
        super().__init__(base_layer)
        self.boft_R = nn.Parameter(torch.zeros(factors, inputs // block, block, block))
        self.boft_s = nn.Parameter(torch.ones(outputs, 1))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate [..., inputs], by the last factor first."""
        factors, blocks, side, _ = self.boft_R.shape
        rotations = _cayley(self.boft_R)
        for factor in reversed(range(factors)):
            x = _exchange(x, side, 2**factor)
            parts = torch.einsum("...dk,dkc->...dc", x.unflatten(-1, (blocks, side)), rotations[factor])
            x = _exchange(parts.flatten(-2), side, 2**factor, back=True)
        return x

    def scale(self) -> Tensor:
        return self.boft_s[:, 0]


def _cayley(free: Tensor) -> Tensor:
    """Return (1 - S)(1 + S)^-1, which is orthogonal, of the skew-symmetric parts S of matrices [..., b, b]."""
    skew = 0.5 * (free - free.transpose(-1, -2))
    one = torch.eye(free.shape[-1], device=free.device).expand_as(free)
    return torch.linalg.solve(one + skew, one - skew, left=False)


def _exchange(x: Tensor, side: int, apart: int, back: bool = False) -> Tensor:
    """Bring halves of blocks of ``side`` inputs together that are ``apart`` halves from each other, or back again."""
    if apart == 1:
        return x
    order = (-1, apart, 2, side // 2) if back else (-1, 2, apart, side // 2)
    return x.unflatten(-1, order).transpose(-3, -2).flatten(-4)
