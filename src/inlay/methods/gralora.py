"""GraLoRA (arXiv 2505.20355): the weight cut into k x k blocks, each with a low-rank update of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from inlay.methods.peft_layers import PeftMethod, refuse_uneven

if TYPE_CHECKING:
    from peft import GraloraConfig
    from torch import nn


class GraLoRA(PeftMethod):
    """Low-rank updates of the k x k blocks of each weight; the B start at zero, so step 0 is the base."""

    name: Literal["gralora"] = "gralora"
    rank: Annotated[int, Field(ge=1)] = 8
    """r, over all blocks of a row: each has r / k. Must be a multiple of `gralora_k`."""
    gralora_k: Annotated[int, Field(ge=1)] = 2
    """k, the blocks along each side; must divide inputs and outputs of all chosen layers."""
    hybrid_r: Annotated[int, Field(ge=0)] = 0
    """Rank of an ordinary LoRA beside the blocks, for large k."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha / (rank + hybrid_r); by default to 1."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""

    file_name: ClassVar[str] = "gralora.safetensors"
    learning_rate: ClassVar[float] = 1e-3

    @model_validator(mode="after")
    def _consistent(self) -> GraLoRA:
        if self.rank % self.gralora_k:
            raise ValueError(f"rank={self.rank} is no multiple of gralora_k={self.gralora_k}")
        return self

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        refuse_uneven("gralora_k", self.gralora_k, layers, ("inputs", "outputs"))
        return super().wrappers(layers)

    def peft_config(self, names: list[str], pattern: str) -> GraloraConfig:
        from peft import GraloraConfig

        return GraloraConfig(
            r=self.rank,
            gralora_k=self.gralora_k,
            hybrid_r=self.hybrid_r,
            alpha=self.rank + self.hybrid_r if self.alpha is None else self.alpha,  # pyright: ignore[reportArgumentType]
            gralora_dropout=self.dropout,
            target_modules=pattern,
        )
