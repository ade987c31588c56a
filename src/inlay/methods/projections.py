"""The linear layers of attention: what calls each, and how wide it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Projection:
    """A linear layer by its place, which keeps whatever a method wraps around the layer."""

    parent: nn.Module
    """The module that calls it."""
    child: str
    """Under which name, a direct child's."""
    inputs: int
    outputs: int


def projections(layer: Any) -> dict[str, Projection]:
    """Return the four linear layers of an attention layer (diffusers' ``Attention``) by their names in it."""
    return {
        "to_q": Projection(layer, "to_q", layer.query_dim, layer.inner_dim),
        "to_k": Projection(layer, "to_k", layer.cross_attention_dim, layer.inner_kv_dim),
        "to_v": Projection(layer, "to_v", layer.cross_attention_dim, layer.inner_kv_dim),
        "to_out.0": Projection(layer.to_out, "0", layer.inner_dim, layer.out_dim),
    }


def added(output: Tensor, change: Tensor) -> Tensor:
    """Add a change [B, L, width] to what a projection gives, in that one's precision.

    The output may be longer: prefixes put vectors before the keys and values, which no weight of the layer makes and
    no change of its weights would reach.
    """
    import torch.nn.functional as F

    longer = output.shape[1] - change.shape[1]
    change = change.to(output.dtype)
    return output + (F.pad(change, (0, 0, longer, 0)) if longer else change)
