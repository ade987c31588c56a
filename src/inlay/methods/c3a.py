"""C3A (arXiv 2407.19342): an update of circulant blocks, which is a circular convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from inlay.methods.peft_layers import PeftMethod, refuse_uneven

if TYPE_CHECKING:
    from peft import C3AConfig
    from torch import nn


class C3A(PeftMethod):
    """Updates W + C / inputs, C of circulant blocks, each given by one row; all start at zero: step 0 is the base."""

    name: Literal["c3a"] = "c3a"
    block_size: Annotated[int, Field(ge=1)] = 32
    """b, the side of a block; must divide inputs and outputs of all chosen layers. Larger means fewer parameters."""

    file_name: ClassVar[str] = "c3a.safetensors"
    learning_rate: ClassVar[float] = 1e-1

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        from inlay.methods.circulant import Circulant

        refuse_uneven("block_size", self.block_size, layers, ("inputs", "outputs"))
        wrapped = super().wrappers(layers)
        for wrapper in wrapped.values():
            wrapper.__class__ = Circulant
        return wrapped

    def peft_config(self, names: list[str], pattern: str) -> C3AConfig:
        from peft import C3AConfig

        return C3AConfig(block_size=self.block_size, init_weights=True, target_modules=pattern)
