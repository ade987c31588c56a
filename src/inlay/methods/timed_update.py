"""A low-rank update of which fewer ranks act the more noise there is (T-LoRA, arXiv 2507.05964)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from inlay.methods.layer_taps import Tap, Taps
from inlay.randomness import stream

START = 1 / 12**0.5
"""All of S at first. LoRA begins with one matrix that moves, B, and rows of length 1 / sqrt(3) in the other. Here both
move, each times S and rows or columns of length 1: at one learning rate weights then change about as fast."""


class TimedUpdate(nn.Module):
    """B S M A x - B0 S0 M A0 x, with S diagonal and M the mask over ranks; nothing at first, when A is A0 and so on."""

    def __init__(self, inputs: int, outputs: int, rank: int, seed: int, index: int, meta: bool):
        """Begin with orthonormal rows of A and columns of B.

        The start is no part of what is saved: it follows from ``seed`` and the layer's ``index``, up to the last bits
        in which machines differ. It is not drawn on the ``meta`` device.
        """
        super().__init__()
        self._start = (
            _frame(inputs, rank, seed, 2 * index, meta).T.contiguous(),
            torch.full((rank,), START, device="meta" if meta else "cpu"),
            _frame(outputs, rank, seed, 2 * index + 1, meta),
        )
        self.A, self.S, self.B = (nn.Parameter(part.clone()) for part in self._start)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, L, inputs], mask [B or 1, rank] => [B, L, outputs]."""
        if self._start[0].device != self.A.device:
            # No buffers: those of a base are all its own.
            a, s, b = (part.to(self.A.device) for part in self._start)
            self._start = a, s, b
        x, mask = x.to(self.A.dtype), mask[:, None]
        start_a, start_s, start_b = self._start
        return _product(self.A, self.S, self.B, mask, x) - _product(start_a, start_s, start_b, mask, x)


def _product(a: Tensor, s: Tensor, b: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    return F.linear(F.linear(x, a) * (s * mask), b)


def _frame(width: int, rank: int, seed: int, index: int, meta: bool) -> Tensor:
    """Return orthonormal columns [width, rank], uniformly distributed: the Q of a Gaussian matrix."""
    if meta:
        return torch.empty(width, rank, device="meta")
    gaussian = torch.randn(width, rank, generator=stream(seed, "tlora start", index), device="cpu")
    return torch.linalg.qr(gaussian).Q.contiguous()


class RankMask(Tap):
    """Knows from the denoiser's timesteps which ranks act.

    It keeps what the last pass was given, for gradient checkpointing computes blocks again during the backward pass.
    The backward pass must therefore come before the next pass with the method enabled.
    """

    def __init__(self, denoiser: nn.Module, rank: int, min_rank: int, timesteps: int):
        """Ranks from ``min_rank`` at pure noise to ``rank`` without noise, over ``timesteps`` in training."""
        self._denoiser = denoiser
        self._index = list(inspect.signature(type(denoiser).forward).parameters).index("timestep") - 1
        self._sizes = rank, min_rank, timesteps
        self._owner: Taps | None = None
        self._handle: RemovableHandle | None = None
        self.mask: Tensor | None = None
        """[B or 1, rank] of zeros and ones; None before the first pass."""

    def settle(self, owner: Taps) -> None:
        if self._handle is None:
            self._owner = owner
            self._handle = self._denoiser.register_forward_pre_hook(self._before, with_kwargs=True)

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self.mask = None

    def _before(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._owner is not None and self._owner.enabled:
            timestep = kwargs["timestep"] if "timestep" in kwargs else args[self._index]
            device = next(denoiser.parameters()).device
            self.mask = rank_mask(torch.as_tensor(timestep, device=device).reshape(-1), *self._sizes)


def rank_mask(timestep: Tensor, rank: int, min_rank: int, timesteps: int) -> Tensor:
    """Return float32 [B, rank]: ones for the first r(t) ranks (arXiv 2507.05964).

    r(t) = floor((rank - min_rank) (T - t) / T) + min_rank, for timesteps t [B].
    """
    acting = ((rank - min_rank) * (timesteps - timestep) / timesteps).floor() + min_rank
    return (torch.arange(rank, device=timestep.device) < acting[:, None]).float()
