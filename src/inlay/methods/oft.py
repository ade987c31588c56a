"""OFT (arXiv 2306.07280): the inputs of a layer are rotated, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import Form, PeftMethod, refuse_uneven
from inlay.methods.targets import Kind

if TYPE_CHECKING:
    from peft import OFTConfig
    from torch import nn


class OFT(PeftMethod):
    """Replaces W by W R, R orthogonal in blocks by Cayley's transform; R is 1 at first, so step 0 is the base."""

    name: Literal["oft"] = "oft"
    oft_block_size: Annotated[int, Field(ge=2)] = 32
    """b, the side of R's blocks; must divide the inputs of all chosen layers."""

    file_name: ClassVar[str] = "oft.safetensors"
    learning_rate: ClassVar[float] = 5e-4
    # PEFT rotates the window of larger convolutions by unfolding and folding, which adds up overlapping windows: it
    # changes the base before anything is learned, and merges into something else.
    wraps: ClassVar[Kind] = "pointwise"

    @property
    def form(self) -> Form:
        return "around"

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        refuse_uneven("oft_block_size", self.oft_block_size, layers, ("inputs",))
        return super().wrappers(layers)

    def peft_config(self, names: list[str], pattern: str) -> OFTConfig:
        from peft import OFTConfig

        return OFTConfig(
            oft_block_size=self.oft_block_size,
            # The series that PEFT uses by default is orthogonal only near the start.
            use_cayley_neumann=False,
            target_modules=pattern,
        )
