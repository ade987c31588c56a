"""MiSS (arXiv 2409.15371, also called Bone): an update that repeats one small block over all inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import PeftMethod, refuse_larger, size

if TYPE_CHECKING:
    from peft import MissConfig
    from torch import nn


class MiSS(PeftMethod):
    """Adds one r x outputs block, repeated over each layer's inputs; it starts at zero, so step 0 is the base."""

    name: Literal["miss"] = "miss"
    rank: Annotated[int, Field(ge=1)] = 16
    """r, the rows of the block; at most the inputs of each chosen layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""

    file_name: ClassVar[str] = "miss.safetensors"
    learning_rate: ClassVar[float] = 5e-4

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        refuse_larger("rank", self.rank, {name: size(layer, "inputs") for name, layer in layers.items()}, "inputs")
        return super().wrappers(layers)

    def peft_config(self, names: list[str], pattern: str) -> MissConfig:
        from peft import MissConfig

        return MissConfig(r=self.rank, miss_dropout=self.dropout, target_modules=pattern)
