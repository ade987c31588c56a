"""BOFT (arXiv 2311.06243): the inputs of a layer are rotated by a product of sparse rotations, a butterfly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from inlay.methods.peft_layers import Form, LayerMethod, refuse_uneven, size
from inlay.methods.targets import Kind

if TYPE_CHECKING:
    from torch import nn


class BOFT(LayerMethod):
    """Replaces W by diag(s) W R, R a product of m block-wise rotations; R = s = 1 at first, so step 0 is the base."""

    name: Literal["boft"] = "boft"
    boft_block_size: Annotated[int, Field(ge=2)] = 8
    """b, the side of the rotations' blocks; b 2^(m - 1) must divide the inputs of all chosen layers."""
    boft_n_butterfly_factor: Annotated[int, Field(ge=1)] = 2
    """m, the number of rotations; each mixes inputs that are twice as far apart as in the one before."""

    file_name: ClassVar[str] = "boft.safetensors"
    learning_rate: ClassVar[float] = 1e-3
    wraps: ClassVar[Kind] = "pointwise"

    @model_validator(mode="after")
    def _even(self) -> BOFT:
        if self.boft_n_butterfly_factor > 1 and self.boft_block_size % 2:
            raise ValueError(
                f"boft_block_size={self.boft_block_size} is odd, and a butterfly exchanges halves of blocks"
            )
        return self

    @property
    def form(self) -> Form:
        return "around"

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        from inlay.methods.butterfly import Butterfly

        b, m = self.boft_block_size, self.boft_n_butterfly_factor
        setting = "boft_block_size" if m == 1 else "boft_block_size * 2 ** (boft_n_butterfly_factor - 1)"
        refuse_uneven(setting, b * 2 ** (m - 1), layers, ("inputs",))
        return {
            name: Butterfly(layer, size(layer, "inputs"), size(layer, "outputs"), b, m)
            for name, layer in layers.items()
        }
