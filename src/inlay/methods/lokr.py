"""LoKr (KronA, arXiv 2212.10650; LyCORIS, arXiv 2309.14859): a Kronecker product as the update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import PeftMethod
from inlay.methods.targets import Kind

if TYPE_CHECKING:
    from peft import LoKrConfig


class LoKr(PeftMethod):
    """Updates W + (alpha / rank) C (x) D, D of low rank where it is large; C starts at zero, so step 0 is the base."""

    name: Literal["lokr"] = "lokr"
    rank: Annotated[int, Field(ge=1)] = 8
    """Inner width of D; where it is half of D's larger side or more, D is learned whole."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha / rank; by default alpha = rank."""
    decompose_factor: Annotated[int, Field(ge=1)] | None = None
    """Largest size of C's sides; by default inputs and outputs are split as near to their square roots as they can."""
    decompose_both: bool = False
    """Give C a low rank too, where it is large."""
    effective_conv2d: bool = False
    """Give the D of a convolution a small kernel of its own in the middle, instead of flattening its window."""
    rank_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an output of the update during training."""
    module_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of leaving out a layer's update in a training step."""

    file_name: ClassVar[str] = "lokr.safetensors"
    learning_rate: ClassVar[float] = 3e-3
    wraps: ClassVar[Kind] = "convolutional"

    def peft_config(self, names: list[str], pattern: str) -> LoKrConfig:
        from peft import LoKrConfig

        return LoKrConfig(
            r=self.rank,
            alpha=self.rank if self.alpha is None else self.alpha,  # pyright: ignore[reportArgumentType]
            target_modules=pattern,
            decompose_factor=-1 if self.decompose_factor is None else self.decompose_factor,
            decompose_both=self.decompose_both,
            use_effective_conv2d=self.effective_conv2d,
            rank_dropout=self.rank_dropout,
            module_dropout=self.module_dropout,
        )
