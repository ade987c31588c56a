"""LoRA (arXiv 2106.09685): low-rank updates beside frozen linear and convolutional layers, by PEFT."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from inlay.errors import TargetError
from inlay.methods.contract import Attachment, Method

if TYPE_CHECKING:
    from torch import nn

PRESETS = {
    "attention": r"attn[12]\.(to_q|to_k|to_v|to_out\.0)",
    "cross-attention": r"attn2\.(to_q|to_k|to_v|to_out\.0)",
    "cross-attention-qk": r"attn2\.(to_q|to_k)",
    "transformer": r"(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)",
    "everything": r".*",
}
"""Names for sets of the denoiser's layers: a layer belongs when its name ends in the expression."""
TEXT_TARGETS = r"self_attn\.(q_proj|k_proj|v_proj|out_proj)"
ADAPTER_NAMES = (f"inlay{number}" for number in itertools.count())
"""PEFT tells the adapters of one layer apart by name, so each attachment takes a new one."""


class Lora(Method):
    """Low-rank updates W + (alpha / rank) B A on chosen layers; B starts at zero, so step 0 is the base."""

    name: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 8
    """r, the inner width of the update."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha / rank; by default alpha = rank."""
    targets: str | tuple[str, ...] = "attention"
    r"""Layers of the denoiser: a preset (`attention`, `cross-attention`, `cross-attention-qk`, `transformer`,
    `everything`), a list of name endings such as `[to_q, to_k]`, or a regular expression for the whole name."""
    text_encoder: bool = False
    """Tune the text encoder's attention too."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of the update during training."""
    dora: bool = False
    """Learn each weight's magnitude apart from its direction (DoRA, arXiv 2402.09353)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "pytorch_lora_weights.safetensors"
    learning_rate: ClassVar[float] = 1e-4

    @model_validator(mode="after")
    def _targets_compile(self) -> Lora:
        if not self.targets or (not isinstance(self.targets, str) and not all(self.targets)):
            raise ValueError(f"targets is empty; give a preset ({', '.join(PRESETS)}), name endings or an expression")
        if isinstance(self.targets, str):
            try:
                re.compile(self.targets)
            except re.error as error:
                raise ValueError(f"targets {self.targets!r} is no regular expression: {error}") from None
        return self

    def attach(self, components: Mapping[str, nn.Module]) -> LoraAttachment:
        """Wrap the chosen layers; see :meth:`Method.attach`."""
        chosen = {"unet": self._choose(components["unet"])}
        if self.text_encoder:
            names = linear_layers(components["text_encoder"])
            chosen["text_encoder"] = [name for name in names if re.search(rf"(^|\.)({TEXT_TARGETS})$", name)]
            if not chosen["text_encoder"]:
                raise TargetError("method.text_encoder=true: the base's text encoder has no CLIP attention layers")
        return LoraAttachment(self, {part: components[part] for part in chosen}, chosen)

    def _choose(self, unet: nn.Module) -> list[str]:
        names = linear_layers(unet)
        if not isinstance(self.targets, str):
            absent = [target for target in self.targets if not any(_ends(name, target) for name in names)]
            if absent:
                endings = sorted({re.sub(r".*?([a-z_]\w*(\.\d+)*)$", r"\1", name) for name in names})
                raise TargetError(
                    f"method.targets: no layer of the denoiser ends in {', '.join(map(repr, absent))}; "
                    f"layers end in: {', '.join(endings)}"
                )
            return [name for name in names if any(_ends(name, target) for target in self.targets)]
        if self.targets in PRESETS:
            return [name for name in names if re.search(rf"(^|\.)({PRESETS[self.targets]})$", name)]
        chosen = [name for name in names if re.fullmatch(self.targets, name)]
        if not chosen:
            raise TargetError(
                f"method.targets={self.targets!r} is neither a preset ({', '.join(PRESETS)}) nor an expression that "
                f"matches a whole layer name, such as {names[0]}"
            )
        return chosen


def linear_layers(module: nn.Module) -> list[str]:
    """Return the names of a module's linear and convolutional layers, those that PEFT has wrapped included."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    names = []
    for name, layer in module.named_modules():
        kind = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
        if isinstance(kind, (nn.Linear, nn.Conv2d)) and ".base_layer" not in name and ".lora_" not in name:
            names.append(name)
    return names


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


class LoraAttachment(Attachment):
    """PEFT's layers in their places, under an adapter name of their own."""

    def __init__(self, method: Lora, roots: Mapping[str, nn.Module], chosen: Mapping[str, list[str]]):
        """Wrap the layers named in ``chosen``, part by part."""
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        self.method: Lora = method
        self._roots = dict(roots)
        self._adapter = next(ADAPTER_NAMES)
        self._layers: dict[str, Any] = {}
        before = {part: {id(p) for p in root.parameters() if p.requires_grad} for part, root in roots.items()}
        for part, root in roots.items():
            config = LoraConfig(
                r=method.rank,
                lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
                target_modules=list(chosen[part]),
                lora_dropout=method.dropout,
                use_dora=method.dora,
                use_rslora=method.rslora,
                init_lora_weights=True,
            )
            training = root.training
            inject_adapter_in_model(config, root, adapter_name=self._adapter)
            root.train(training)
            for name in chosen[part]:
                layer: Any = root.get_submodule(name)
                self._layers[f"{part}.{name}"] = layer
                _activate(layer, [*(_others(layer, self._adapter)), self._adapter])
            # PEFT freezes what it did not make: give other attachments' parameters back their gradients.
            for parameter in root.parameters():
                if id(parameter) in before[part]:
                    parameter.requires_grad_(True)
        for parameter in self.parameters().values():
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)

    @property
    def alpha(self) -> float:
        """Alpha as it is used."""
        return self.method.rank if self.method.alpha is None else self.method.alpha

    @property
    def components(self) -> frozenset[str]:
        return frozenset(self._roots)

    def parameters(self) -> dict[str, nn.Parameter]:
        found: dict[str, nn.Parameter] = {}
        for name, layer in self._layers.items():
            for kind in ("lora_A", "lora_B"):
                found[f"{name}.{kind}.weight"] = getattr(layer, kind)[self._adapter].weight
            if self.method.dora:
                found[f"{name}.lora_magnitude_vector"] = layer.lora_magnitude_vector[self._adapter].weight
        return found

    @contextmanager
    def disabled(self) -> Iterator[None]:
        active = {name: list(layer.active_adapters) for name, layer in self._layers.items()}
        for layer in self._layers.values():
            _activate(layer, _others(layer, self._adapter))
        try:
            yield
        finally:
            for name, layer in self._layers.items():
                _activate(layer, active[name])

    def merge(self) -> None:
        for layer in self._layers.values():
            layer.merge(adapter_names=[self._adapter])
            layer.merged_adapters.remove(self._adapter)
        self.detach()

    def detach(self) -> None:
        for path, layer in self._layers.items():
            part, _, name = path.partition(".")
            others = _others(layer, self._adapter)
            _activate(layer, others)
            layer.delete_adapter(self._adapter)
            if not others:
                parent, _, child = name.rpartition(".")
                setattr(self._roots[part].get_submodule(parent), child, layer.get_base_layer())
        for root in self._roots.values():
            configs = getattr(root, "peft_config", {})
            configs.pop(self._adapter, None)
            if not configs and hasattr(root, "peft_config"):
                del root.peft_config
        self._layers = {}

    def metadata(self) -> dict[str, str]:
        """Return PEFT's settings in the form in which diffusers stores them beside a LoRA."""
        modules: dict[str, list[str]] = {part: [] for part in self._roots}
        for path in self._layers:
            part, _, name = path.partition(".")
            modules[part].append(name)
        settings = {
            f"{part}.{key}": value
            for part, names in modules.items()
            for key, value in {
                "r": self.method.rank,
                "lora_alpha": self.alpha,
                "target_modules": sorted(names),
                "lora_dropout": self.method.dropout,
                "use_dora": self.method.dora,
                "use_rslora": self.method.rslora,
                "peft_type": "LORA",
            }.items()
        }
        return {"lora_adapter_metadata": json.dumps(settings, sort_keys=True)}


def _others(layer: Any, adapter: str) -> list[str]:
    return [name for name in layer.active_adapters if name != adapter]


def _activate(layer: Any, adapters: list[str]) -> None:
    """Choose which adapters of a layer act; unlike PEFT's ``set_adapter`` this leaves ``requires_grad`` alone."""
    layer._active_adapter = adapters
