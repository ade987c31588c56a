"""HRA (arXiv 2405.17484): the inputs of a layer pass through a few learned reflections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from inlay.methods.peft_layers import Form, LayerMethod, size
from inlay.methods.targets import Kind

if TYPE_CHECKING:
    from torch import nn


class HRA(LayerMethod):
    """Replaces W by W H1 ... Hr, reflections that begin in pairs which undo each other: step 0 is the base."""

    name: Literal["hra"] = "hra"
    rank: Annotated[int, Field(ge=2)] = 8
    """r, the number of reflections; even."""

    file_name: ClassVar[str] = "hra.safetensors"
    learning_rate: ClassVar[float] = 3e-3
    wraps: ClassVar[Kind] = "pointwise"

    @field_validator("rank")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd, and reflections begin in pairs")
        return value

    @property
    def form(self) -> Form:
        return "around"

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        from inlay.methods.reflections import Reflections

        return {name: Reflections(layer, size(layer, "inputs"), self.rank) for name, layer in layers.items()}
