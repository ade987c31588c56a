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
from inlay.methods.contract import Attachment, Method, pick

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
        wanted = ("unet", "text_encoder") if self.text_encoder else ("unet",)
        roots = pick(components, wanted)
        chosen = {"unet": self._choose(roots["unet"])}
        if self.text_encoder:
            names = linear_layers(roots["text_encoder"])
            chosen["text_encoder"] = [name for name in names if re.search(rf"(^|\.)({TEXT_TARGETS})$", name)]
            if not chosen["text_encoder"]:
                raise TargetError("method.text_encoder=true: the base's text encoder has no CLIP attention layers")
        return LoraAttachment(self, roots, chosen)

    def _choose(self, unet: nn.Module) -> list[str]:
        names = linear_layers(unet)
        if not isinstance(self.targets, str):
            absent = [target for target in self.targets if not any(_ends(name, target) for name in names)]
            if absent:
                raise TargetError(
                    f"method.targets: no layer of the denoiser ends in {', '.join(map(repr, absent))}; "
                    f"layers end in: {_endings(names)}"
                )
            return [name for name in names if any(_ends(name, target) for target in self.targets)]
        if self.targets in PRESETS:
            chosen = [name for name in names if re.search(rf"(^|\.)({PRESETS[self.targets]})$", name)]
            if not chosen:
                raise TargetError(
                    f"method.targets={self.targets}: the denoiser has no such layers; layers end in: {_endings(names)}"
                )
            return chosen
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


def _endings(names: list[str]) -> str:
    """Return what layer names end in: the last word, with the numbers behind it."""
    return ", ".join(sorted({re.sub(r".*?([a-zA-Z_]\w*(\.\d+)*)$", r"\1", name) for name in names}))


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


class LoraAttachment(Attachment):
    """PEFT's layers in their places, under an adapter name of their own."""

    def __init__(self, method: Lora, roots: Mapping[str, nn.Module], chosen: Mapping[str, list[str]]):
        """Wrap the layers named in ``chosen``, part by part."""
        import torch

        self.method: Lora = method
        self._roots = dict(roots)
        self._adapter = next(ADAPTER_NAMES)
        self._layers: dict[str, Any] = {}
        for part, names in chosen.items():
            _inject(roots[part], names, self._adapter, method, self.alpha)
            for name in names:
                layer: Any = roots[part].get_submodule(name)
                layer.train(layer.get_base_layer().training)
                _activate(layer, [*layer.active_adapters, self._adapter])
                self._layers[f"{part}.{name}"] = layer
        for parameter in self.parameters().values():
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)
        if method.dora:
            for layer in self._layers.values():
                # PEFT measured the weights in the base's precision; forward passes measure them in float32.
                vector, weight = layer.lora_magnitude_vector[self._adapter], layer.get_base_layer().weight.detach()
                vector.weight.data = vector.get_weight_norm(weight.to(torch.float32), torch.zeros_like(weight), 1)

    @property
    def alpha(self) -> float:
        """Alpha as it is used."""
        return self.method.rank if self.method.alpha is None else self.method.alpha

    @property
    def components(self) -> frozenset[str]:
        return frozenset(self._roots)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return A, B and DoRA's magnitudes by the names that diffusers' ``load_lora_weights`` reads.

        Its magnitudes have no ending; transformers, which reads the text encoder's for it, finds them only with one.
        """
        found: dict[str, nn.Parameter] = {}
        for path, layer in self._layers.items():
            name = self._saved_name(path)
            for kind in ("lora_A", "lora_B"):
                found[f"{name}.{kind}.weight"] = getattr(layer, kind)[self._adapter].weight
            if self.method.dora:
                vector = "lora_magnitude_vector" if name.startswith("unet.") else "lora_magnitude_vector.weight"
                found[f"{name}.{vector}"] = layer.lora_magnitude_vector[self._adapter].weight
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
        for path, layer in self._layers.items():
            others = _others(layer, self._adapter)
            if any(name in layer.lora_magnitude_vector for name in others) or (others and self.method.dora):
                raise TargetError(
                    f"lora: {path} carries a DoRA and another LoRA. DoRA scales what all of them give together, so "
                    "they cannot be folded into the base one after the other; detach one of them first"
                )
        for layer in self._layers.values():
            layer.merge(adapter_names=[self._adapter])
            layer.merged_adapters.remove(self._adapter)
        self.detach()

    def detach(self) -> None:
        for path, layer in self._layers.items():
            _activate(layer, _others(layer, self._adapter))
            layer.delete_adapter(self._adapter)
            if not layer.lora_A:
                part, _, name = path.partition(".")
                parent, _, child = name.rpartition(".")
                setattr(self._roots[part].get_submodule(parent), child, layer.get_base_layer())
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
                # diffusers leaves the layers that it loads in training mode: dropout would act in its pictures.
                "lora_dropout": 0.0,
                "use_dora": self.method.dora,
                "use_rslora": self.method.rslora,
                "peft_type": "LORA",
            }.items()
        }
        return {"lora_adapter_metadata": json.dumps(settings, sort_keys=True)}

    def _saved_name(self, path: str) -> str:
        """Return a layer's name in files. All published ones have CLIP's level `text_model`, transformers 5 has not."""
        part, _, name = path.partition(".")
        if part == "text_encoder" and not name.startswith("text_model."):
            return f"{part}.text_model.{name}"
        return path


def _inject(root: nn.Module, names: list[str], adapter: str, method: Lora, alpha: float) -> None:
    """Let PEFT wrap layers, and undo what it does to everything else.

    PEFT takes the new adapter for the only one: it switches others off, freezes their parameters, and keeps a table of
    adapters on the root, at which it warns the next time.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = LoraConfig(
        r=method.rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        # An expression, since PEFT takes listed names for endings too, and "0" ends many names.
        target_modules="|".join(re.escape(name) for name in names),
        lora_dropout=method.dropout,
        use_dora=method.dora,
        use_rslora=method.rslora,
        init_lora_weights=True,
    )
    trainable = [parameter for parameter in root.parameters() if parameter.requires_grad]
    active = {id(layer): list(layer.active_adapters) for layer in root.modules() if isinstance(layer, BaseTunerLayer)}
    table = vars(root).pop("peft_config", None)
    inject_adapter_in_model(config, root, adapter_name=adapter)
    del root.peft_config
    if table is not None:
        root.peft_config = table
    for layer in root.modules():
        if isinstance(layer, BaseTunerLayer):
            _activate(layer, active.get(id(layer), []))
    for parameter in trainable:
        parameter.requires_grad_(True)


def _others(layer: Any, adapter: str) -> list[str]:
    return [name for name in layer.active_adapters if name != adapter]


def _activate(layer: Any, adapters: list[str]) -> None:
    """Choose which adapters of a layer act; unlike PEFT's ``set_adapter`` this leaves ``requires_grad`` alone."""
    layer._active_adapter = adapters
