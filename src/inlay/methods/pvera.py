"""PVeRA (arXiv 2512.07703): VeRA whose middle is a normal distribution, sampled in training and its mean afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import PeftMethod

if TYPE_CHECKING:
    from peft import PveraConfig


class PVeRA(PeftMethod):
    """VeRA with noise: A x gives a mean and a variance, of which training draws; b starts at zero: the base."""

    name: Literal["pvera"] = "pvera"
    rank: Annotated[int, Field(ge=1)] = 256
    """r, the number of B's columns; A has twice as many rows, for means and for logarithms of variances."""
    d_initial: float = 0.1
    """What d begins at."""
    projection_prng_key: int = 0
    """Seed of A and B, which are not saved but drawn again."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""

    file_name: ClassVar[str] = "pvera.safetensors"
    learning_rate: ClassVar[float] = 1e-2

    def peft_config(self, names: list[str], pattern: str) -> PveraConfig:
        from peft import PveraConfig

        return PveraConfig(
            r=self.rank,
            d_initial=self.d_initial,
            projection_prng_key=self.projection_prng_key,
            pvera_dropout=self.dropout,
            target_modules=pattern,
        )
