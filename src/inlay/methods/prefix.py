"""Prefix tuning (arXiv 2101.00190): learned keys and values before those that attention computes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from inlay.errors import TargetError
from inlay.methods.attention import FusionGuard, Kind, attentions, of_kind
from inlay.methods.contract import Method, pick
from inlay.methods.layer_taps import OutputTap, Tap, TapAttachment, Taps

if TYPE_CHECKING:
    from torch import Tensor, nn


class Prefix(Method):
    """Learned key and value vectors before the keys and values of attention, other ones in every layer."""

    name: Literal["prefix"] = "prefix"
    length: Annotated[int, Field(ge=1)] = 10
    """Number of vectors before the keys, and before the values, of a layer."""
    attention: Literal["cross", "self", "both"] = "cross"
    """Which layers: attention to the text, to the picture itself, or both."""
    reparametrise: Annotated[int, Field(ge=1)] | None = None
    """Train the vectors as outputs of a small network of this width that all layers share; null to train the vectors
    themselves. The network can be folded away afterwards."""
    init: Literal["quiet", "normal"] = "quiet"
    """`quiet`: values begin at zero, so that a prefix takes attention away from the text but adds nothing. `normal`:
    keys and values both begin at random."""
    std: Annotated[float, Field(gt=0)] = 0.02
    """Standard deviation of what begins at random: vectors, or the network's inputs and last weights."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "prefix.safetensors"
    learning_rate: ClassVar[float] = 1e-2
    merges: ClassVar[bool] = False

    @property
    def starts_at_base(self) -> bool:
        """Never: the vectors take part in the softmax from the first step."""
        return False

    def attach(self, components: Mapping[str, nn.Module]) -> PrefixAttachment:
        """Set vectors before keys and values; see :meth:`Method.attach`."""
        unet = pick(components, ("unet",))["unet"]
        layers = attentions(unet)
        kinds: tuple[Kind, ...] = ("cross", "self") if self.attention == "both" else (self.attention,)
        chosen = {name for kind in kinds for name in of_kind(layers, kind)}
        return PrefixAttachment(self, unet, {name: layer for name, layer in layers.items() if name in chosen})


class PrefixAttachment(TapAttachment):
    """Vectors before what `to_k` and `to_v` give: attention itself, by whichever backend, treats them as any others."""

    def __init__(self, method: Prefix, unet: nn.Module, layers: Mapping[str, Any]):
        """Draw the vectors, or the network that makes them."""
        self.method: Prefix = method
        self._layers = dict(layers)
        widths = {name: layer.inner_kv_dim for name, layer in layers.items()}
        pieces = _vectors(method, widths) if method.reparametrise is None else _network(method, widths)
        taps: list[Tap] = [FusionGuard(layers)]
        for name, layer in layers.items():
            taps.append(_MaskTap(layer, method.length))
            for kind, child in (("key", "to_k"), ("value", "to_v")):
                make = functools.partial(_made, pieces, name, kind)
                taps.append(OutputTap(layer, child, functools.partial(_prepended, make)))
        super().__init__(method, unet, pieces, taps)

    def merge(self) -> None:
        raise TargetError(
            "prefix: attention to further keys and values cannot be expressed in the base's weights; "
            "keep the prefix as a file beside the base"
        )

    def fold(self) -> PrefixAttachment:
        """Put the vectors that the network makes in the place of this attachment, which is detached.

        The new one computes the same from ``length`` vectors for keys and for values a layer and knows no network.
        """
        state = {
            f"unet.{name}.{kind}": _made(self._pieces, name, kind).detach()
            for name in self._layers
            for kind in ("key", "value")
        }
        method = self.method.model_copy(update={"reparametrise": None})
        self.detach()
        folded = PrefixAttachment(method, self._denoiser, self._layers)
        folded.load(state)
        return folded

    def metadata(self) -> dict[str, str]:
        return {}


def _vectors(method: Prefix, widths: Mapping[str, int]) -> dict[str, Any]:
    """Return for each layer its `key` and `value`, [length, width]."""
    import torch
    from torch import nn

    return {
        name: nn.ParameterDict(
            {
                "key": method.std * torch.randn(method.length, width),
                "value": _value_std(method) * torch.randn(method.length, width),
            }
        )
        for name, width in widths.items()
    }


def _network(method: Prefix, widths: Mapping[str, int]) -> dict[str, Any]:
    """Return the inputs, the hidden layer and the heads of a network (arXiv 2101.00190, section 4.3).

    Inputs and hidden layer are common to all layers; heads make each layer's `key` and `value` of what comes out.
    """
    import torch
    from torch import nn

    from inlay.methods.affine import Affine

    inner = method.reparametrise
    assert inner is not None
    pieces: dict[str, nn.Module] = {
        "inputs": nn.ParameterDict({"vectors": torch.randn(method.length, inner)}),
        "hidden": Affine(inner, inner),
    }
    for name, width in widths.items():
        heads = {"key": Affine(inner, width), "value": Affine(inner, width)}
        for head, std in ((heads["key"], method.std), (heads["value"], _value_std(method))):
            nn.init.normal_(head.weight, std=std)
            nn.init.zeros_(head.bias)
        pieces[name] = nn.ModuleDict(heads)
    return pieces


def _value_std(method: Prefix) -> float:
    return 0.0 if method.init == "quiet" else method.std


def _made(pieces: Mapping[str, Any], layer: str, kind: str) -> Tensor:
    """Return a layer's vectors of one kind, [length, width]."""
    import torch

    if "inputs" not in pieces:
        return pieces[layer][kind]
    return pieces[layer][kind](torch.tanh(pieces["hidden"](pieces["inputs"]["vectors"])))


def _prepended(make: Callable[[], Tensor], x: Tensor, output: Tensor) -> Tensor:
    """Output [B, L, width] => [B, length + L, width]."""
    import torch

    return torch.cat([make().to(output.dtype).expand(len(output), -1, -1), output], dim=1)


class _MaskTap(Tap):
    """Lets every query attend to the vectors where the layer's mask does not know of them.

    All attention processors of diffusers have their mask prepared by a method of the layer, for the length of what the
    keys are made of.
    """

    def __init__(self, layer: Any, length: int):
        self._layer, self.length = layer, length
        self.owner: Taps | None = None

    def settle(self, owner: Taps) -> None:
        if self.owner is None:
            self.owner = owner
            if "prepare_attention_mask" not in vars(self._layer):
                self._layer.prepare_attention_mask = _Mask(self._layer)
            self._layer.prepare_attention_mask.prefixes.append(self)

    def remove(self) -> None:
        if self.owner is not None:
            self._layer.prepare_attention_mask.prefixes.remove(self)
            if not self._layer.prepare_attention_mask.prefixes:
                del self._layer.prepare_attention_mask
            self.owner = None


class _Mask:
    """A layer's own ``prepare_attention_mask``, and then columns for the prefixes that are enabled."""

    def __init__(self, layer: Any):
        self._layer = layer
        self.prefixes: list[_MaskTap] = []

    def __call__(self, attention_mask: Tensor | None, *args: Any, **kwargs: Any) -> Tensor | None:
        import torch
        import torch.nn.functional as F

        mask = type(self._layer).prepare_attention_mask(self._layer, attention_mask, *args, **kwargs)
        length = sum(tap.length for tap in self.prefixes if tap.owner is not None and tap.owner.enabled)
        if mask is None or length == 0:
            return mask
        # A mask is added to the scores, or says of each key whether it takes part.
        return F.pad(mask, (length, 0), value=mask.dtype == torch.bool)
