"""LoRA (arXiv 2106.09685): low-rank updates beside frozen linear and convolutional layers, by PEFT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from inlay.methods.peft_layers import Form, LayerAttachment, PeftMethod, saved_path
from inlay.methods.targets import Kind

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor, nn


class Lora(PeftMethod):
    """Low-rank updates W + (alpha / rank) B A on chosen layers; B starts at zero, so step 0 is the base."""

    name: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 8
    """r, the inner width of the update."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha / rank; by default alpha = rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""
    dora: bool = False
    """Learn each weight's magnitude apart from its direction (DoRA, arXiv 2402.09353)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)."""
    init: Literal["default", "gaussian", "pissa", "olora"] = "default"
    """How A and B begin. With B = 0: A uniform as PyTorch initialises layers (`default`), or normal with standard
    deviation 1 / rank (`gaussian`). Out of the weight itself: its largest singular values (`pissa`, arXiv 2404.02948)
    or the first columns of its QR decomposition (`olora`, arXiv 2406.01775); the update is then what B A changes, so
    that step 0 is the base with these too."""

    file_name: ClassVar[str] = "pytorch_lora_weights.safetensors"
    learning_rate: ClassVar[float] = 1e-4
    wraps: ClassVar[Kind] = "convolutional"

    @model_validator(mode="after")
    def _consistent(self) -> Lora:
        if self.dora and self.from_weight:
            raise ValueError(f"init={self.init} takes A and B out of the weight, which dora measures; use one of them")
        return self

    @property
    def from_weight(self) -> bool:
        """Whether A and B begin as a part of the weight."""
        return self.init in ("pissa", "olora")

    @property
    def used_alpha(self) -> float:
        """Alpha as it is used."""
        return self.rank if self.alpha is None else self.alpha

    @property
    def form(self) -> Form:
        return "measured" if self.dora else "added"

    def peft_config(self, names: list[str], pattern: str) -> LoraConfig:
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.used_alpha,  # pyright: ignore[reportArgumentType]
            target_modules=pattern,
            lora_dropout=self.dropout,
            use_dora=self.dora,
            use_rslora=self.rslora,
            init_lora_weights="gaussian" if self.init == "gaussian" else True,
        )

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        found = super().wrappers(layers)
        if self.from_weight:
            from inlay.methods import lora_init

            begin = lora_init.pissa if self.init == "pissa" else lora_init.olora
            for layer in found.values():
                begin(layer)
        return found

    def attach(self, components: Mapping[str, nn.Module]) -> LoraAttachment:
        """Wrap the chosen layers; see :meth:`Method.attach`."""
        return LoraAttachment(self, *self.chosen(components))

    def metadata(self, names: Mapping[str, list[str]]) -> dict[str, str]:
        """Return PEFT's settings in the form in which diffusers stores them beside a LoRA.

        What begins as a part of the weight is saved as a LoRA of twice the rank, see :class:`LoraAttachment`; alpha
        grows so that the update's scale stays.
        """
        doubled = 2 if self.from_weight else 1
        settings = {
            f"{part}.{key}": value
            for part, layers in names.items()
            for key, value in {
                "r": doubled * self.rank,
                "lora_alpha": self.used_alpha * (doubled**0.5 if self.rslora else doubled),
                "target_modules": sorted(layers),
                # diffusers leaves the layers that it loads in training mode: dropout would act in its pictures.
                "lora_dropout": 0.0,
                "use_dora": self.dora,
                "use_rslora": self.rslora,
                "peft_type": "LORA",
            }.items()
        }
        return {"lora_adapter_metadata": json.dumps(settings, sort_keys=True)}


class LoraAttachment(LayerAttachment):
    """LoRA's wrappers, and their tensors by the names that diffusers' ``load_lora_weights`` reads.

    A LoRA that began at A0, B0 out of the weight changes it by B A - B0 A0, which is a LoRA of twice the rank with
    A, A0 above each other and B, -B0 side by side (PiSSA, arXiv 2404.02948, appendix on conversion). That is what
    files hold: they act on the unchanged base, in any reader, and need no decomposition to be repeated exactly.
    """

    method: Lora

    def state(self) -> dict[str, Tensor]:
        import torch

        state = super().state()
        for name, start in self._starts().items():
            axis = 0 if ".lora_A." in name else 1
            state[name] = torch.cat([state[name], start if axis == 0 else -start], dim=axis)
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.refuse_misfit(state)
        halves = dict(state)
        for name, start in self._starts().items():
            axis = 0 if ".lora_A." in name else 1
            halves[name], other = state[name].chunk(2, dim=axis)
            start.copy_(other if axis == 0 else -other)
        for name, parameter in self.parameters().items():
            parameter.data.copy_(halves[name])

    def _starts(self) -> dict[str, Tensor]:
        """Return A0 and B0 by the names of A and B."""
        if not self.method.from_weight:
            return {}
        return {
            f"{saved_path(path)}.{kind}.weight": layer.get_buffer(f"{kind}_start")
            for path, layer in self._layers.items()
            for kind in ("lora_A", "lora_B")
        }

    def _named(self) -> dict[str, nn.Parameter]:
        """DoRA's magnitudes have no ending; transformers, which reads the text encoder's, finds them only with one."""
        ending = "lora_magnitude_vector.weight"
        return {
            name.removesuffix(".weight") if name.startswith("unet.") and name.endswith(ending) else name: parameter
            for name, parameter in super()._named().items()
        }
