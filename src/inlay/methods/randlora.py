"""RandLoRA (arXiv 2502.00987): a full-rank update out of frozen random bases, whose scales are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import PeftMethod

if TYPE_CHECKING:
    from peft import RandLoraConfig


class RandLoRA(PeftMethod):
    """Updates W + sum B diag(l) A diag(g) over frozen random pairs of a low rank; the l start at zero: the base."""

    name: Literal["randlora"] = "randlora"
    rank: Annotated[int, Field(ge=1)] = 32
    """r, the rank of each pair; a layer has min(inputs, outputs) / r pairs, so less rank means more parameters."""
    alpha: Annotated[float, Field(gt=0)] = 640
    """The update is scaled by alpha / rank."""
    projection_prng_key: int = 0
    """Seed of the bases, which are not saved but drawn again."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""

    file_name: ClassVar[str] = "randlora.safetensors"
    learning_rate: ClassVar[float] = 5e-4

    def peft_config(self, names: list[str], pattern: str) -> RandLoraConfig:
        from peft import RandLoraConfig

        return RandLoraConfig(
            r=self.rank,
            randlora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
            projection_prng_key=self.projection_prng_key,
            randlora_dropout=self.dropout,
            target_modules=pattern,
        )
