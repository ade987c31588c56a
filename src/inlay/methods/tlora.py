"""T-LoRA (arXiv 2507.05964): low-rank updates that hold back where noise is strong, lest few pictures be overfitted."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from inlay.errors import TargetError
from inlay.methods.attention import FusionGuard, attentions, of_kind
from inlay.methods.contract import Method, pick
from inlay.methods.layer_taps import OutputTap, Tap, TapAttachment
from inlay.methods.projections import added, projections

if TYPE_CHECKING:
    from torch import Tensor, nn


class TLora(Method):
    """Low-rank updates of attention, of which fewer ranks act the more noise there is: few pictures overfit less."""

    name: Literal["tlora"] = "tlora"
    rank: Annotated[int, Field(ge=1)] = 8
    """r, the inner width of the update, all of which acts where there is no noise."""
    min_rank: Annotated[int, Field(ge=0)] | None = None
    """How many of the ranks still act on pure noise, the same ones at every timestep; by default half, rounded up."""
    attention: Literal["cross", "self", "both"] = "both"
    """Whose queries, keys, values and outputs are updated: attention to the text, to the picture itself, or both."""
    timesteps: Annotated[int, Field(ge=1)] = 1000
    """T, the number of timesteps that the base was trained with; all Stable Diffusion models have 1000."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the orthogonal matrices that the update begins with. They are no part of the file."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "tlora.safetensors"
    learning_rate: ClassVar[float] = 1e-3
    merges: ClassVar[bool] = False

    @model_validator(mode="after")
    def _ranks_grow(self) -> TLora:
        if self.min_rank is not None and self.min_rank > self.rank:
            raise ValueError(f"min_rank={self.min_rank} is more than rank={self.rank}; give at most that")
        return self

    def attach(self, components: Mapping[str, nn.Module]) -> TLoraAttachment:
        """Set an update beside every chosen layer; see :meth:`Method.attach`."""
        unet = pick(components, ("unet",))["unet"]
        layers = attentions(unet)
        if self.attention != "both":
            layers = of_kind(layers, self.attention)
        if not layers:
            raise TargetError(
                f"tlora: the denoiser, a {type(unet).__name__}, has no attention (in diffusers' BasicTransformerBlock)"
            )
        for name, layer in layers.items():
            for child, place in projections(layer).items():
                if self.rank > min(place.inputs, place.outputs):
                    raise TargetError(
                        f"method.rank={self.rank}: {name}.{child} has {place.inputs} inputs and {place.outputs} "
                        f"outputs, so at most {min(place.inputs, place.outputs)} orthogonal ranks"
                    )
        return TLoraAttachment(self, unet, layers)


class TLoraAttachment(TapAttachment):
    """Updates beside the projections of attention, and a tap on the denoiser that tells them the timesteps."""

    def __init__(self, method: TLora, unet: nn.Module, layers: Mapping[str, Any]):
        """Begin with updates that give nothing yet."""
        from inlay.methods.timed_update import RankMask, TimedUpdate

        self.method: TLora = method
        meta = next(unet.parameters()).is_meta
        ranks = RankMask(unet, method.rank, self.min_rank, method.timesteps)
        pieces: dict[str, nn.Module] = {}
        taps: list[Tap] = [FusionGuard(layers), ranks]
        for name, layer in layers.items():
            for child, place in projections(layer).items():
                shape = (place.inputs, place.outputs, method.rank)
                update = pieces[f"{name}.{child}"] = TimedUpdate(*shape, method.seed, len(pieces), meta)
                taps.append(OutputTap(place.parent, place.child, functools.partial(_updated, ranks, update)))
        super().__init__(method, unet, pieces, taps)

    @property
    def min_rank(self) -> int:
        """How many ranks act on pure noise."""
        return (self.method.rank + 1) // 2 if self.method.min_rank is None else self.method.min_rank

    def merge(self) -> None:
        raise TargetError(
            "tlora: its update changes with the timestep, and the base's weights do not; keep its file beside the "
            "base, or tune with a method that merges, such as lora"
        )

    def metadata(self) -> dict[str, str]:
        return {}


def _updated(ranks: Any, update: Any, x: Tensor, output: Tensor) -> Tensor:
    """x [B, L, inputs], output [B, L, outputs] => output + the update of x at the batch's timesteps."""
    return added(output, update(x, ranks.mask))
