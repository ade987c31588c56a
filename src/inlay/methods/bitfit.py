"""BitFit (arXiv 2106.10199): only the biases that the base has already are tuned."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from inlay.errors import TargetError
from inlay.methods.contract import Method, pick
from inlay.methods.layer_taps import OutputTap, TapAttachment
from inlay.methods.peft_layers import refuse_wrapped

if TYPE_CHECKING:
    from torch import Tensor, nn

Scope = Literal["attention", "transformer-blocks", "transformers", "all"]


class BitFit(Method):
    """Tune the denoiser's biases and nothing else; what is learned and saved is each bias's change, zero at first."""

    name: Literal["bitfit"] = "bitfit"
    scope: Scope = "transformer-blocks"
    """Whose biases: those of the `attention` layers, of the `transformer-blocks` (attention, feed-forward and their
    norms), of the `transformers` around these (with their own norm and projections), or `all` of the denoiser."""
    norms: bool = False
    """Tune the weights of the norms in the scope too, which scale each channel."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "bitfit.safetensors"
    learning_rate: ClassVar[float] = 1e-3

    def attach(self, components: Mapping[str, nn.Module]) -> BitFitAttachment:
        """Set a change beside every bias in scope; see :meth:`Method.attach`."""
        unet = pick(components, ("unet",))["unet"]
        layers = {name: layer for root in _roots(unet, self.scope) for name, layer in _biased(unet, root).items()}
        if not layers:
            raise TargetError(f"method.scope={self.scope}: the denoiser has no layers with a bias there")
        return BitFitAttachment(self, unet, layers)


def _roots(unet: nn.Module, scope: Scope) -> list[str]:
    """Return the names of the modules that a scope is made of."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.attention_processor import Attention
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    if scope == "all":
        return [""]
    kind = {"attention": Attention, "transformer-blocks": BasicTransformerBlock, "transformers": Transformer2DModel}
    found = [name for name, module in unet.named_modules() if isinstance(module, kind[scope])]
    if not found:
        raise TargetError(
            f"method.scope={scope}: the denoiser has no {kind[scope].__name__}; scopes: {', '.join([*kind, 'all'])}"
        )
    return found


def _biased(unet: nn.Module, root: str) -> dict[str, Any]:
    """Return the layers with a bias below ``root``, by the names they have where no other method has wrapped them."""
    from torch import nn

    return {
        name.replace(".base_layer", ""): layer
        for name, layer in unet.get_submodule(root).named_modules(prefix=root)
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)) and layer.bias is not None
    }


class BitFitAttachment(TapAttachment):
    """A change b beside each bias: what a layer gives, plus b. A norm's weight and bias enter linearly as well."""

    def __init__(self, method: BitFit, unet: nn.Module, layers: Mapping[str, Any]):
        """Begin with changes of zero."""
        import torch
        from torch import nn

        self._layers = dict(layers)
        pieces: dict[str, nn.Module] = {}
        taps = []
        for name, layer in layers.items():
            scaled = method.norms and isinstance(layer, (nn.LayerNorm, nn.GroupNorm))
            kinds = ("weight", "bias") if scaled else ("bias",)
            piece = nn.ParameterDict({kind: torch.zeros_like(getattr(layer, kind)) for kind in kinds})
            parent, _, child = name.rpartition(".")
            change = functools.partial(_renormed if scaled else _shifted, layer, piece)
            taps.append(OutputTap(unet.get_submodule(parent), child, change))
            pieces[name] = piece
        super().__init__(method, unet, pieces, taps)

    def merge(self) -> None:
        """Add the changes to the base's own biases; in exact arithmetic nothing else changes.

        Raises:
            TargetError: a layer is wrapped by a method that would then scale the change as well.
        """
        for name in self._pieces:
            refuse_wrapped(self.method, self._denoiser, name)
        for name, piece in self._pieces.items():
            for kind, change in piece.named_parameters():
                own = getattr(self._layers[name], kind)
                own.data = (own.data.to(change.dtype) + change.detach()).to(own.dtype)
        self.detach()

    def metadata(self) -> dict[str, str]:
        return {}


def _shifted(layer: nn.Module, piece: Any, x: Tensor, output: Tensor) -> Tensor:
    """output [B, ..., C] or, of a convolution, [B, C, h, w] => output + change."""
    from torch import nn

    change = piece["bias"].to(output.dtype)
    channels_second = isinstance(layer, (nn.Conv2d, nn.GroupNorm))
    return output + (change.view(-1, *[1] * (output.dim() - 2)) if channels_second else change)


def _renormed(layer: Any, piece: Any, x: Tensor, output: Tensor) -> Tensor:
    """Add what the norm of x gives under the changes alone: a norm is linear in its weight and bias together."""
    import torch.nn.functional as F
    from torch import nn

    weight, bias = piece["weight"], piece["bias"]
    x = x.to(weight.dtype)
    if isinstance(layer, nn.GroupNorm):
        change = F.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    else:
        change = F.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)
    return output + change.to(output.dtype)
