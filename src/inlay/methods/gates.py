"""Gates of a transformer block: numbers between 0 and 1 that its input decides (arXiv 2110.07577)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from inlay.methods.layer_taps import Tap, Taps

MEMORY = 0.99
"""Decay of the running mean, which so looks back over about 100 passes."""


class Gates(nn.Module):
    """sigmoid(W x + b), averaged over the tokens: one number a picture and part, 1/2 at first."""

    def __init__(self, width: int, parts: int):
        """Begin with W and b of zero; ``width`` is that of the block's tokens."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(parts, width))
        self.bias = nn.Parameter(torch.zeros(parts))
        self.open: Tensor | None = None
        """[B, parts] while the block computes, None otherwise."""
        self.recent: Tensor | None = None
        """[parts], running mean over pictures and training passes; None before the first."""

    def decide(self, x: Tensor) -> None:
        """Open for the block's input [B, L, width]."""
        self.open = torch.sigmoid(F.linear(x.to(self.weight.dtype), self.weight, self.bias)).mean(dim=1)
        if self.training and not x.is_meta:
            mean = self.open.detach().float().mean(dim=0)
            self.recent = mean if self.recent is None else torch.lerp(mean, self.recent, MEMORY)

    def close(self) -> None:
        """Forget the input: nothing outlives the block's forward call, which gradient checkpointing may repeat."""
        self.open = None

    def of(self, part: int) -> Tensor:
        """Return one part's gate, [B, 1, 1]."""
        assert self.open is not None
        return self.open[:, part, None, None]


class GateTap(Tap):
    """Lets a block's input decide its gates, before anything in the block computes."""

    def __init__(self, block: nn.Module, gates: Gates):
        """Address a ``BasicTransformerBlock``, which no method wraps."""
        self._block, self._gates = block, gates
        self._owner: Taps | None = None
        self._handles: list[RemovableHandle] = []

    def settle(self, owner: Taps) -> None:
        if not self._handles:
            self._owner = owner
            self._handles = [
                self._block.register_forward_pre_hook(self._before, with_kwargs=True),
                self._block.register_forward_hook(self._after, always_call=True),
            ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._owner is not None and self._owner.enabled:
            self._gates.decide(args[0] if args else kwargs["hidden_states"])

    def _after(self, *_: Any) -> None:
        self._gates.close()
