"""Where a denoiser attends: the layers whose keys and values some methods change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from inlay.errors import TargetError
from inlay.methods.layer_taps import Tap, Taps

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["cross", "self"]


def attentions(denoiser: nn.Module) -> dict[str, Any]:
    """Return the attention layers of a denoiser's transformer blocks (diffusers' ``Attention``) by name."""
    from diffusers.models.attention import BasicTransformerBlock

    found = {}
    for block_name, block in denoiser.named_modules():
        if isinstance(block, BasicTransformerBlock):
            for name in ("attn1", "attn2"):
                if getattr(block, name) is not None:
                    found[f"{block_name}.{name}"] = getattr(block, name)
    return found


def of_kind(layers: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Return the layers that attend to the text (`cross`) or to the picture itself (`self`).

    Raises:
        TargetError: there is none.
    """
    found = {name: layer for name, layer in layers.items() if layer.is_cross_attention == (kind == "cross")}
    if not found:
        raise TargetError(f"the denoiser has no {kind}-attention (in diffusers' BasicTransformerBlock)")
    return found


class FusionGuard(Tap):
    """Refuses to compute where keys and values come out of one fused layer: `to_k` and `to_v` are not called then."""

    def __init__(self, layers: Mapping[str, Any]):
        """Watch over layers by name."""
        self._layers = dict(layers)

    def settle(self, owner: Taps) -> None:
        for name, layer in self._layers.items():
            if layer.fused_projections:
                raise TargetError(
                    f"{name}: its projections are fused into one layer, which this method cannot change; "
                    "call unfuse_qkv_projections() on the denoiser first"
                )

    def remove(self) -> None:
        pass
