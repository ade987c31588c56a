"""DiffFit (arXiv 2304.06648): biases and norms, and a factor on what attention and feed-forward add to the stream."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from inlay.errors import TargetError
from inlay.methods.bitfit import BitFit, Scope
from inlay.methods.contract import Method, pick
from inlay.methods.layer_taps import OutputTap, TapAttachment, Taps

if TYPE_CHECKING:
    from torch import Tensor, nn

SUBLAYERS = {"attn1": "to_out.0", "attn2": "to_out.0", "ff": "net.2"}
"""What adds to the residual stream of a transformer block, and the linear layer in which each ends."""


class DiffFit(Method):
    """Tune biases, norms, and a factor for every channel of what attention and feed-forward give."""

    name: Literal["difffit"] = "difffit"
    scope: Scope = "all"
    """Whose biases and norms: those of the `attention` layers, of the `transformer-blocks`, of the `transformers`
    around these, or `all` of the denoiser. The factors are in every transformer block anyway."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "difffit.safetensors"
    learning_rate: ClassVar[float] = 1e-3

    def attach(self, components: Mapping[str, nn.Module]) -> DiffFitAttachment:
        """Set factors behind sublayers, and changes beside biases and norms; see :meth:`Method.attach`."""
        from inlay.methods.blocks import find_blocks

        unet = pick(components, ("unet",))["unet"]
        blocks = {block.name: block.module for block in find_blocks(unet, "transformer")}
        if not blocks:
            raise TargetError(
                f"difffit: the denoiser, a {type(unet).__name__}, has no blocks of the kind that its factors know "
                "(diffusers' BasicTransformerBlock)"
            )
        return DiffFitAttachment(self, unet, blocks)


class DiffFitAttachment(TapAttachment):
    """The change of each factor, zero at first, and BitFit's attachment for biases and norms."""

    def __init__(self, method: DiffFit, unet: nn.Module, blocks: Mapping[str, Any]):
        """Begin with factors of one and no change of biases and norms."""
        import torch
        from peft.tuners.tuners_utils import BaseTunerLayer
        from torch import nn

        self.method: DiffFit = method
        self._biases = BitFit(scope=method.scope, norms=True).attach({"unet": unet})
        self._last: dict[str, nn.Linear] = {}
        pieces: dict[str, nn.Module] = {}
        taps = []
        for name, block in blocks.items():
            for child, last in SUBLAYERS.items():
                if getattr(block, child) is not None:
                    path = f"{name}.{child}"
                    layer: Any = getattr(block, child).get_submodule(last)
                    if isinstance(layer, BaseTunerLayer):
                        layer = layer.get_base_layer()
                    self._last[path] = layer
                    width = self._last[path].out_features
                    factors = pieces[path] = nn.ParameterDict({"scale": torch.zeros(width)})
                    taps.append(OutputTap(block, child, functools.partial(_scaled, factors)))
        super().__init__(method, unet, pieces, taps)

    def parameters(self) -> dict[str, nn.Parameter]:
        return {**super().parameters(), **self._biases.parameters()}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        with super().disabled(), self._biases.disabled():
            yield

    def merge(self) -> None:
        """Add the changes to biases and norms; multiply weight and bias of the layer in which each sublayer ends.

        Raises:
            TargetError: another method acts on the denoiser; what it adds before a factor would escape that.
        """
        if self._others():
            raise TargetError(
                "difffit: another method acts on the denoiser, and the factors multiply what that one gives too; "
                "folded into the base they would not. Merge or detach it first, or keep both files beside the base"
            )
        scales = {path: factors.get_parameter("scale").detach() for path, factors in self._pieces.items()}
        self._biases.merge()
        for path, layer in self._last.items():
            for own in (layer.weight, layer.bias):
                if own is not None:
                    factor = 1 + scales[path].view(-1, *[1] * (own.dim() - 1))
                    own.data = (own.data.to(factor.dtype) * factor).to(own.dtype)
        self._take_out()

    def detach(self) -> None:
        self._biases.detach()
        self._take_out()

    def _take_out(self) -> None:
        """Take the factors out, biases and norms having left."""
        super().detach()
        self._last = {}

    def metadata(self) -> dict[str, str]:
        return {}

    def _others(self) -> bool:
        """Return whether a method beside this one has wrapped or hooked layers of the denoiser."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        from inlay.methods.bridges import CHILD

        hooks = [getattr(hook, "__self__", None) for hook in self._denoiser._forward_pre_hooks.values()]
        taps = [owner for owner in hooks if isinstance(owner, Taps)]
        modules = dict(self._denoiser.named_modules())
        return (
            len(taps) > 2  # the factors' own, and BitFit's
            or any(isinstance(module, BaseTunerLayer) for module in modules.values())
            or any(name.rpartition(".")[2] == CHILD for name in modules)
        )


def _scaled(factors: Any, x: Tensor, output: Tensor) -> Tensor:
    """output [B, L, width] => output * (1 + change), rounded to its precision once."""
    return output + (output * factors["scale"]).to(output.dtype)
