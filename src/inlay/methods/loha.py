"""LoHa (FedPara, arXiv 2108.06098; LyCORIS, arXiv 2309.14859): the elementwise product of two low-rank updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import PeftMethod
from inlay.methods.targets import Kind

if TYPE_CHECKING:
    from peft import LoHaConfig
    from torch import nn


class LoHa(PeftMethod):
    """Updates W + (alpha / rank) (A1 B1) o (A2 B2), of up to rank squared; B2 starts at zero: the base."""

    name: Literal["loha"] = "loha"
    rank: Annotated[int, Field(ge=1)] = 8
    """r, the inner width of each of the two updates."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha / rank; by default alpha = rank."""
    effective_conv2d: bool = False
    """Give convolutions a small kernel of their own in the middle (FedPara, proposition 3) instead of flattening their
    window into the inputs."""
    rank_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an output of the update during training."""
    module_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of leaving out a layer's update in a training step."""

    file_name: ClassVar[str] = "loha.safetensors"
    learning_rate: ClassVar[float] = 2e-3
    wraps: ClassVar[Kind] = "convolutional"

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        wrapped = super().wrappers(layers)
        if self.effective_conv2d:
            from inlay.methods.cored_product import CoredConv2d

            for wrapper in wrapped.values():
                if wrapper.hada_t1:
                    wrapper.__class__ = CoredConv2d
        return wrapped

    def peft_config(self, names: list[str], pattern: str) -> LoHaConfig:
        from peft import LoHaConfig

        return LoHaConfig(
            r=self.rank,
            alpha=self.rank if self.alpha is None else self.alpha,  # pyright: ignore[reportArgumentType]
            target_modules=pattern,
            use_effective_conv2d=self.effective_conv2d,
            rank_dropout=self.rank_dropout,
            module_dropout=self.module_dropout,
        )
