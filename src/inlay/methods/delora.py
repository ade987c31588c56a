"""DeLoRA (arXiv 2503.18225): low-rank updates whose direction and strength are learned apart, the strength bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import PeftMethod

if TYPE_CHECKING:
    from peft import DeloraConfig


class DeLoRA(PeftMethod):
    """Updates W + (lambda ||W|| / r) B A with B's and A's vectors at length 1; B starts at zero: the base."""

    name: Literal["delora"] = "delora"
    rank: Annotated[int, Field(ge=1)] = 8
    """r, the inner width of the update."""
    delora_lambda: Annotated[float, Field(gt=0)] = 1.0
    """What lambda, the learned strength of each layer, begins at. (The publication tunes language models with 15, which
    throws a diffusion model off at the first step.)"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""

    file_name: ClassVar[str] = "delora.safetensors"
    learning_rate: ClassVar[float] = 1e-3

    def peft_config(self, names: list[str], pattern: str) -> DeloraConfig:
        from peft import DeloraConfig

        return DeloraConfig(
            r=self.rank,
            delora_lambda=self.delora_lambda,  # pyright: ignore[reportArgumentType]
            module_dropout=self.dropout,
            target_modules=pattern,
        )
