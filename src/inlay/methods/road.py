"""RoAd (arXiv 2409.00119): pairs of a layer's outputs are rotated and scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from inlay.methods.peft_layers import Form, PeftMethod, refuse_uneven

if TYPE_CHECKING:
    from peft import RoadConfig
    from torch import nn


class RoAd(PeftMethod):
    """Multiplies pairs of outputs, bias included, by learned rotations and factors, at first 0 and 1: the base."""

    name: Literal["road"] = "road"
    variant: Literal["road_1", "road_2", "road_4"] = "road_1"
    """Angles and factors for each pair of outputs: one of both, two, or four."""
    group_size: Annotated[int, Field(ge=2)] = 32
    """Outputs in a group, in which the first half is paired with the second; must divide the outputs of all chosen
    layers."""

    file_name: ClassVar[str] = "road.safetensors"
    learning_rate: ClassVar[float] = 3e-2

    @field_validator("group_size")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd, and outputs are rotated in pairs")
        return value

    @property
    def form(self) -> Form:
        return "around"

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        refuse_uneven("group_size", self.group_size, layers, ("outputs",))
        return super().wrappers(layers)

    def peft_config(self, names: list[str], pattern: str) -> RoadConfig:
        from peft import RoadConfig

        return RoadConfig(variant=self.variant, group_size=self.group_size, target_modules=pattern)
