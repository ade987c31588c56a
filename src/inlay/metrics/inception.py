"""The Inception network of the Frechet Inception Distance, without torchvision.

Inception-v3 (Szegedy et al. 2016, figures 5 to 7 and table 1) as TensorFlow published it on 2015-12-05 for Heusel et
al. 2017: three things differ from later ones. Average pools do not count the padding, the last block pools by maximum,
and the weights are their own. Names of parameters are those of the published conversion, so its file loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 299
"""Height and width that the network sees, in pixels."""
WIDTH = 2048
"""Features a picture."""


class Conv(NamedTuple):
    """A convolution with normalisation; without stride it keeps height and width."""

    name: str
    channels: int
    window: tuple[int, int] = (1, 1)
    stride: int = 1


class Branch(NamedTuple):
    """A path through a block: pooling, then convolutions, where several at one step stand side by side."""

    steps: tuple[Conv | tuple[Conv, ...], ...]
    pool: str = ""
    """"mean" or "maximum" of 3 x 3 at stride 1, "halve" for the maximum at stride 2, or nothing."""


def _block_a(pooled: int) -> tuple[Branch, ...]:
    return (
        Branch((Conv("branch1x1", 64),)),
        Branch((Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5)))),
        Branch((Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3)))),
        Branch((Conv("branch_pool", pooled),), "mean"),
    )


def _block_c(inner: int) -> tuple[Branch, ...]:
    wide, tall = (1, 7), (7, 1)
    return (
        Branch((Conv("branch1x1", 192),)),
        Branch((Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, wide), Conv("branch7x7_3", 192, tall))),
        Branch(
            (
                Conv("branch7x7dbl_1", inner),
                Conv("branch7x7dbl_2", inner, tall),
                Conv("branch7x7dbl_3", inner, wide),
                Conv("branch7x7dbl_4", inner, tall),
                Conv("branch7x7dbl_5", 192, wide),
            )
        ),
        Branch((Conv("branch_pool", 192),), "mean"),
    )


def _block_e(pool: str) -> tuple[Branch, ...]:
    def split(stem: str) -> tuple[Conv, Conv]:
        return Conv(f"{stem}a", 384, (1, 3)), Conv(f"{stem}b", 384, (3, 1))

    return (
        Branch((Conv("branch1x1", 320),)),
        Branch((Conv("branch3x3_1", 384), split("branch3x3_2"))),
        Branch((Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)), split("branch3x3dbl_3"))),
        Branch((Conv("branch_pool", 192),), pool),
    )


BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": (
        Branch((Conv("branch3x3", 384, (3, 3), 2),)),
        Branch((Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3), 2))),
        Branch((), "halve"),
    ),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": (
        Branch((Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2))),
        Branch(
            (
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, (1, 7)),
                Conv("branch7x7x3_3", 192, (7, 1)),
                Conv("branch7x7x3_4", 192, (3, 3), 2),
            )
        ),
        Branch((), "halve"),
    ),
    "Mixed_7b": _block_e("mean"),
    "Mixed_7c": _block_e("maximum"),
}
"""The blocks after the stem, in order."""


class _Convolution(nn.Module):
    """Convolution, batch normalisation with fixed statistics, rectifier."""

    def __init__(self, inputs: int, conv: Conv, pad: bool = True) -> None:
        super().__init__()
        height, width = conv.window
        padding = (height // 2, width // 2) if pad and conv.stride == 1 else 0
        self.conv = nn.Conv2d(inputs, conv.channels, conv.window, conv.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(conv.channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Branches side by side, their channels joined."""

    def __init__(self, inputs: int, branches: Sequence[Branch]) -> None:
        super().__init__()
        self.branches = branches
        self.channels = 0
        for branch in branches:
            width = inputs
            for step in branch.steps:
                parallel = (step,) if isinstance(step, Conv) else step
                for conv in parallel:
                    self.add_module(conv.name, _Convolution(width, conv))
                width = sum(conv.channels for conv in parallel)
            self.channels += width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._along(branch, x) for branch in self.branches], 1)

    def _along(self, branch: Branch, x: Tensor) -> Tensor:
        if branch.pool == "mean":
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        elif branch.pool == "maximum":
            x = F.max_pool2d(x, 3, 1, 1)
        elif branch.pool == "halve":
            x = F.max_pool2d(x, 3, 2)
        for step in branch.steps:
            parallel = (step,) if isinstance(step, Conv) else step
            x = torch.cat([self.get_submodule(conv.name)(x) for conv in parallel], 1)
        return x


class Inception(nn.Module):
    """Pictures [N, 3, 299, 299] in [-1, 1] => the 2048 features of the last pool, [N, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, Conv("", 32, (3, 3), 2))
        self.Conv2d_2a_3x3 = _Convolution(32, Conv("", 32, (3, 3)), pad=False)
        self.Conv2d_2b_3x3 = _Convolution(32, Conv("", 64, (3, 3)))
        self.Conv2d_3b_1x1 = _Convolution(64, Conv("", 80))
        self.Conv2d_4a_3x3 = _Convolution(80, Conv("", 192, (3, 3)), pad=False)
        width = 192
        for name, branches in BLOCKS.items():
            block = _Block(width, branches)
            self.add_module(name, block)
            width = block.channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))
