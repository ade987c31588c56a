"""VB-LoRA (arXiv 2405.15179): LoRA whose A and B are put together from one bank of short vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from inlay.methods.peft_layers import ADAPTER, PeftMethod, refuse_uneven

if TYPE_CHECKING:
    from peft import VBLoRAConfig
    from torch import nn


class VBLoRA(PeftMethod):
    """Updates W + B A whose pieces mix a few vectors of one shared bank; step 0 is near the base, not at it."""

    name: Literal["vblora"] = "vblora"
    rank: Annotated[int, Field(ge=1)] = 4
    """r, the inner width of the update."""
    num_vectors: Annotated[int, Field(ge=1)] = 90
    """Vectors in the bank."""
    vector_length: Annotated[int, Field(ge=1)] = 32
    """Numbers in each; must divide the inputs and outputs of all chosen layers."""
    topk: Annotated[int, Field(ge=1)] = 2
    """Vectors that make up a piece, chosen by learned logits."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""

    file_name: ClassVar[str] = "vblora.safetensors"
    learning_rate: ClassVar[float] = 5e-3

    @model_validator(mode="after")
    def _consistent(self) -> VBLoRA:
        if self.topk > self.num_vectors:
            raise ValueError(f"topk={self.topk} vectors of a bank of num_vectors={self.num_vectors}")
        return self

    @property
    def starts_at_base(self) -> bool:
        return False

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        refuse_uneven("vector_length", self.vector_length, layers, ("inputs", "outputs"))
        import torch
        from torch import nn

        from inlay.methods.vector_bank import Mixed

        config = self.peft_config(list(layers), "")
        vectors = torch.empty(self.num_vectors, self.vector_length)
        nn.init.uniform_(vectors, -config.init_vector_bank_bound, config.init_vector_bank_bound)
        bank = nn.ParameterDict({ADAPTER: nn.Parameter(vectors)})
        return {name: Mixed(layer, bank, ADAPTER, config, self.rank) for name, layer in layers.items()}

    def peft_config(self, names: list[str], pattern: str) -> VBLoRAConfig:
        from peft import VBLoRAConfig

        return VBLoRAConfig(
            r=self.rank,
            num_vectors=self.num_vectors,
            vector_length=self.vector_length,
            topk=self.topk,
            vblora_dropout=self.dropout,
            target_modules=pattern,
        )
