"""HiRA (Huang et al., ICLR 2025): the weight times a low-rank matrix, elementwise, as the update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import Form, PeftMethod
from inlay.methods.targets import Kind

if TYPE_CHECKING:
    from peft import HiraConfig


class HiRA(PeftMethod):
    """Updates W + W o (B A): as high in rank as W is; B starts at zero, so step 0 is the base."""

    name: Literal["hira"] = "hira"
    rank: Annotated[int, Field(ge=1)] = 16
    """r, the inner width of B A."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""

    file_name: ClassVar[str] = "hira.safetensors"
    learning_rate: ClassVar[float] = 5e-3
    wraps: ClassVar[Kind] = "convolutional"

    @property
    def form(self) -> Form:
        return "measured"

    def peft_config(self, names: list[str], pattern: str) -> HiraConfig:
        from peft import HiraConfig

        return HiraConfig(r=self.rank, target_modules=pattern, hira_dropout=self.dropout)
