"""Matrices by products of two thin ones: the best of a rank, exact sums, and how much is lost.

m and n are a layer's outputs and its inputs (of a convolution, channels times kernel), r a rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Product:
    """A product up @ down beside what it stands for."""

    up: Tensor
    """[m, r] float32."""
    down: Tensor
    """[r, n] float32."""
    norm: float
    """Frobenius norm of what it stands for."""
    error: float
    """Frobenius norm of what the product leaves out."""

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    @property
    def relative_error(self) -> float:
        """Error over norm, in [0, 1]; 0 for a matrix of zeros."""
        return self.error / self.norm if self.norm else 0.0


def truncate(matrix: Tensor, rank: int | None = None, energy: float | None = None) -> Product:
    """Return the best approximation of a matrix [m, n] of a rank (Eckart and Young, 1936).

    Args:
        matrix: of any precision; computed in float64.
        rank: at most so many components.
        energy: as few components as keep this fraction, in (0, 1], of the sum of squares.
    """
    import torch

    wide = matrix.shape[0] <= matrix.shape[1]
    matrix = matrix.to(torch.float64)
    short = matrix if wide else matrix.T
    # The eigenvectors of the smaller Gram matrix are the singular vectors of its side. A full decomposition of a
    # convolution's matrix, 1280 x 11520, took 17 times as long. In float64, singular values below about 1e-8
    # of the largest are noise, which no float32 weight can tell.
    squares, vectors = torch.linalg.eigh(short @ short.T)
    squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
    kept = _kept(squares, rank, energy)
    values, left = squares[:kept].sqrt(), vectors[:, :kept]
    spread = values.sqrt()
    # Both factors get the root of the singular values, so that neither overflows half precision nor vanishes in it.
    inverse = torch.where(spread > 0, 1 / spread, 0)
    right = inverse[:, None] * (left.T @ short)
    left = left * spread
    up, down = (left, right) if wide else (right.T, left.T)
    return Product(
        up.to(torch.float32).contiguous(),
        down.to(torch.float32).contiguous(),
        norm=float(matrix.norm()),
        error=float((matrix - up @ down).norm()),
    )


def combine(terms: Sequence[tuple[Tensor, Tensor]], rank: int | None = None) -> Product:
    """Return the sum of products up [m, r_i] @ down [r_i, n].

    Where the ranks together are within ``rank``, the factors stand side by side, and nothing is lost or rounded.
    Otherwise the sum is truncated, by the decomposition of a matrix of the ranks' sum alone.
    """
    import torch

    ups = torch.cat([up.to(torch.float64) for up, _ in terms], 1)
    downs = torch.cat([down.to(torch.float64) for _, down in terms], 0)
    first, left = torch.linalg.qr(ups)
    second, right = torch.linalg.qr(downs.T)
    core = left @ right.T
    if rank is None or ups.shape[1] <= rank:
        return Product(ups.to(torch.float32), downs.to(torch.float32), norm=float(core.norm()), error=0.0)
    u, values, v = torch.linalg.svd(core, full_matrices=False)
    spread = values[:rank].sqrt()
    return Product(
        (first @ (u[:, :rank] * spread)).to(torch.float32).contiguous(),
        (spread[:, None] * (v[:rank] @ second.T)).to(torch.float32).contiguous(),
        norm=float(core.norm()),
        error=float(values[rank:].norm()),
    )


def product_norm(up: Tensor, down: Tensor) -> float:
    """Return the Frobenius norm of up [m, r] @ down [r, n] without making the product."""
    import torch

    up, down = up.to(torch.float64), down.to(torch.float64)
    # |UD|^2 = tr(U'U DD'); rounding may leave a zero slightly below zero.
    return math.sqrt(max(0.0, float(((up.T @ up) * (down @ down.T)).sum())))


def total_error(parts: Sequence[Product]) -> float:
    """Return the relative error of all parts taken as one matrix."""
    norm = math.hypot(*(part.norm for part in parts))
    return math.hypot(*(part.error for part in parts)) / norm if norm else 0.0


def _kept(squares: Tensor, rank: int | None, energy: float | None) -> int:
    kept = len(squares) if rank is None else min(rank, len(squares))
    if energy is not None:
        # Cumulated from the smallest on, so that a fraction close to 1 is not lost in rounding.
        left_out = squares.flip(0).cumsum(0).flip(0)
        kept = min(kept, max(1, int((left_out > (1 - energy) * left_out[0]).sum())))
    return max(kept, 1)
