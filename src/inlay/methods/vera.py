"""VeRA (arXiv 2310.11454): all layers share one random, frozen A and B; two vectors a layer are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import PeftMethod

if TYPE_CHECKING:
    from peft import VeraConfig


class VeRA(PeftMethod):
    """Updates W + diag(b) B diag(d) A with random A and B that all layers share; b starts at zero: the base."""

    name: Literal["vera"] = "vera"
    rank: Annotated[int, Field(ge=1)] = 256
    """r, the number of A's rows and B's columns, and so of d's entries."""
    d_initial: float = 0.1
    """What d begins at."""
    projection_prng_key: int = 0
    """Seed of A and B, which are not saved but drawn again."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""

    file_name: ClassVar[str] = "vera.safetensors"
    learning_rate: ClassVar[float] = 1e-2

    def peft_config(self, names: list[str], pattern: str) -> VeraConfig:
        from peft import VeraConfig

        return VeraConfig(
            r=self.rank,
            d_initial=self.d_initial,
            projection_prng_key=self.projection_prng_key,
            vera_dropout=self.dropout,
            target_modules=pattern,
        )
