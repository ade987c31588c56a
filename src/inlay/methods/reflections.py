"""Householder reflections of a layer's inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inlay.methods.rotation import Rotation


class Reflections(Rotation):
    """R = H1 ... Hr with H = 1 - 2 u u^T / u^T u (arXiv 2405.17484, equation 4); tensors named as by PEFT."""

    adapter_layer_names = ("hra_u",)

    def __init__(self, base_layer: nn.Module, inputs: int, rank: int):
        """Begin with equal neighbours, which undo each other (PEFT `HRALayer.reset_hra_parameters`)."""
        super().__init__(base_layer)
        half = torch.empty(inputs, rank // 2)
        nn.init.kaiming_uniform_(half, a=math.sqrt(5))
        self.hra_u = nn.Parameter(half.repeat_interleave(2, dim=1))

    def rotate(self, x: Tensor) -> Tensor:
        """Reflect [..., inputs], by the last reflection first.

        Two reflections, by u and then by v = u + e, are x + 2 (u.x) e - 2 (e.x + |e|^2 u.x) v, which is x itself, bit
        for bit, while u and v are equal.
        """
        units = nn.functional.normalize(self.hra_u, dim=0).T
        for v, u in zip(units[0::2].flip(0), units[1::2].flip(0), strict=True):
            e = v - u
            along = (x @ u)[..., None]
            x = x + 2 * along * e - 2 * ((x @ e)[..., None] + e.square().sum() * along) * v
        return x
