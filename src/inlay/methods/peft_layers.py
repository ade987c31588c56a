"""Methods that wrap chosen layers of a base, most of them by PEFT's layers: wrapping, merging and taking out again.

Every attachment has wrappers of its own, one around the other where several methods share a layer. So each acts on what
the ones before it compute, each can be taken out alone, and none has to know of the others.
"""

from __future__ import annotations

import copy
import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from inlay.errors import TargetError
from inlay.methods.contract import Attachment, Method, pick
from inlay.methods.targets import Kind, Targets, choose, choose_text

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

ADAPTER = "inlay"
"""What PEFT's layers call the one adapter that each of them has."""

Form = Literal["added", "around", "measured"]
"""How a wrapper changes what is below it, f: f(x) + D x; or L f(R x); or f(x) + D x with a D that depends on the base's
own weight."""
Side = Literal["inputs", "outputs"]


class LayerMethod(Method):
    """A method that wraps linear layers, and some convolutions too."""

    targets: Targets = "attention"
    r"""Layers of the denoiser: a preset (`attention`, `cross-attention`, `cross-attention-qk`, `transformer`,
    `everything`), a list of name endings such as `[to_q, to_k]`, or a regular expression for the whole name."""
    text_encoder: bool | Literal["transformer"] = False
    """Tune the text encoder's attention too, or with `transformer` all linear layers of its blocks, as kohya's trainer
    does; of Stable Diffusion XL those of both encoders."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    wraps: ClassVar[Kind] = "linear"
    """The layers that it can wrap; presets and expressions mean those among them."""

    @property
    def form(self) -> Form:
        """How its wrappers change a layer."""
        return "added"

    @abstractmethod
    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Return a wrapper around each of the layers of one part of a base, given by name.

        The layers are float32 stand-ins: they may be measured, and are replaced by the base's own afterwards.

        Raises:
            TargetError: the settings do not fit a layer.
        """

    def attach(self, components: Mapping[str, nn.Module]) -> LayerAttachment:
        """Wrap the chosen layers; see :meth:`Method.attach`."""
        return LayerAttachment(self, *self.chosen(components))

    def chosen(self, components: Mapping[str, nn.Module]) -> tuple[dict[str, nn.Module], dict[str, list[str]]]:
        """Return the parts of the base that it changes, and the names of the chosen layers in each.

        Raises:
            TargetError: the base lacks them.
        """
        second = [part for part in ("text_encoder_2",) if part in components]
        roots = pick(components, ("unet", "text_encoder", *second) if self.text_encoder else ("unet",))
        chosen = {"unet": choose(roots["unet"], self.targets, self.wraps)}
        preset = "attention" if self.text_encoder is True else "transformer"
        chosen |= {part: choose_text(root, preset) for part, root in roots.items() if part != "unet"}
        return roots, chosen

    def metadata(self, names: Mapping[str, list[str]]) -> dict[str, str]:
        """Return what readers of the file need to know, given the names of the wrapped layers of each part."""
        return {}


class PeftMethod(LayerMethod):
    """A method whose layers PEFT has."""

    @abstractmethod
    def peft_config(self, names: list[str], pattern: str) -> PeftConfig:
        """Return PEFT's settings.

        Args:
            names: of the layers of one part of a base.
            pattern: an expression that means them to PEFT.
        """

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Let PEFT wrap the layers outside their base, where it cannot change anything else."""
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
        from torch import nn

        carrier = nn.Module()
        for index, layer in enumerate(layers.values()):
            carrier.add_module(f"layer{index}", layer)
        config = self.peft_config(list(layers), r"layer\d+")
        PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](carrier, config, ADAPTER)  # pyright: ignore[reportArgumentType]
        return dict(zip(layers, carrier.children(), strict=True))

    def metadata(self, names: Mapping[str, list[str]]) -> dict[str, str]:
        """Return PEFT's settings for each part: with them and the tensors, PEFT itself can rebuild the layers."""
        settings = {}
        for part, layers in names.items():
            config = self.peft_config(layers, "").to_dict()
            given = {key: value for key, value in config.items() if value not in (None, {}, [])}
            settings[part] = {**given, "target_modules": layers, "inference_mode": True}
        # PEFT keeps names in sets.
        return {"peft_config": json.dumps(settings, sort_keys=True, default=sorted)}


class LayerAttachment(Attachment):
    """Wrappers around layers of a base."""

    def __init__(self, method: LayerMethod, roots: Mapping[str, nn.Module], chosen: Mapping[str, list[str]]):
        """Wrap the layers named in ``chosen``, part by part."""
        self.method: LayerMethod = method
        self._roots = dict(roots)
        wrapped = {
            part: method.wrappers({name: _stand_in(roots[part].get_submodule(name)) for name in names})
            for part, names in chosen.items()
        }
        self._layers: dict[str, Any] = {}
        for part, wrappers in wrapped.items():
            for name, wrapper in wrappers.items():
                below = roots[part].get_submodule(name)
                _set(wrapper, below, method.form)
                parent, _, child = name.rpartition(".")
                setattr(roots[part].get_submodule(parent), child, wrapper)
                self._layers[f"{part}.{name}"] = wrapper
        self._parameters = self._named()

    @property
    def components(self) -> frozenset[str]:
        return frozenset(self._roots)

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._parameters)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        before = {layer: layer.disable_adapters for layer in self._layers.values()}
        for layer in before:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, flag in before.items():
                layer._disable_adapters = flag

    def merge(self) -> None:
        """Fold the wrappers into the layers, bit for bit what :meth:`Attachment.merge` says.

        Raises:
            TargetError: other methods share a layer in a way that would make the result another one.
        """
        for path, layer in self._layers.items():
            self._check_merge(path, layer)
        for layer in self._layers.values():
            layer.merge(adapter_names=[ADAPTER])
            layer.merged_adapters.clear()
        self.detach()

    def detach(self) -> None:
        for path, layer in self._layers.items():
            part, _, name = path.partition(".")
            parent, _, child = name.rpartition(".")
            holder, attribute = self._roots[part].get_submodule(parent), child
            while getattr(holder, attribute) is not layer:
                holder, attribute = getattr(holder, attribute), "base_layer"
            setattr(holder, attribute, layer.base_layer)
        self._layers = {}
        self._parameters = {}

    def metadata(self) -> dict[str, str]:
        names: dict[str, list[str]] = {part: [] for part in self._roots}
        for path in self._layers:
            part, _, name = path.partition(".")
            names[part].append(name)
        return self.method.metadata(names)

    def _named(self) -> dict[str, nn.Parameter]:
        """Return the owned parameters by their names in files; what several layers share is named after their part."""
        places: dict[nn.Parameter, list[str]] = {}
        for path, layer in self._layers.items():
            for name, parameter in layer.named_parameters():
                if name.startswith(layer.adapter_layer_names):
                    places.setdefault(parameter, []).append(f"{saved_path(path)}.{name.replace(f'.{ADAPTER}', '')}")
        named = {}
        for parameter, names in places.items():
            part, own = names[0].partition(".")[0], names[0].rpartition(".")[2]
            named[names[0] if len(names) == 1 else f"{part}.{own}"] = parameter
        return named

    def _check_merge(self, path: str, layer: Any) -> None:
        part, _, name = path.partition(".")
        chain = _chain(self._roots[part].get_submodule(name))
        place = chain.index(layer)
        above, below = chain[:place], chain[place + 1 :]
        if below and any(_form(other) != "added" for other in (layer, *below)):
            raise TargetError(
                f"{self.method.name}: {path} carries another method below it, and what they compute together is not "  # pyright: ignore[reportAttributeAccessIssue]
                "the sum of both. Merge methods in the order in which they were attached; one that measures the base's "
                "weights (DoRA, HiRA) can only be merged where it was attached first"
            )
        if any(_form(other) == "measured" for other in above):
            raise TargetError(
                f"{self.method.name}: {path} carries a method above it that measures the base's weights (DoRA, HiRA), "  # pyright: ignore[reportAttributeAccessIssue]
                "and would measure other ones after merging. Attach that method first, or detach one of them"
            )


def _stand_in(layer: Any) -> Any:
    """Return a layer that can be measured in float32 like the base's own, and changed in any way but its tensors."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    other = copy.copy(base)
    other.__dict__["_parameters"] = {
        name: None if value is None else nn.Parameter(value.detach().to(torch.float32), requires_grad=False)
        for name, value in base._parameters.items()
    }
    return other


def _set(wrapper: Any, below: nn.Module, form: Form) -> None:
    """Put a wrapper around ``below``, in float32, where that lies and in the mode in which it is."""
    import torch
    from torch import nn

    device = wrapper.get_base_layer().weight.device
    # It stays the first child: diffusers takes the type of the first parameter that it finds for the base's.
    wrapper.base_layer = nn.Identity()
    wrapper.to(device, torch.float32).train(below.training)
    wrapper.base_layer = below
    wrapper.inlay_form = form
    for name, parameter in wrapper.named_parameters():
        if name.startswith(wrapper.adapter_layer_names):
            parameter.requires_grad_(True)


def _chain(layer: Any) -> list[Any]:
    """Return the wrappers around a layer of a base, the outermost first."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    chain: list[Any] = []
    while isinstance(layer, BaseTunerLayer):
        chain.append(layer)
        layer = chain[-1].base_layer
    return chain


def _form(wrapper: Any) -> Form:
    """Return how a wrapper acts; of those that others have put there, such as diffusers, nothing is known."""
    return vars(wrapper).get("inlay_form", "around")


def refuse_wrapped(method: Method, root: nn.Module, name: str) -> None:
    """Refuse to change a layer's own tensors beneath wrappers that act on all that the layer gives.

    Raises:
        TargetError: there are such.
    """
    if any(_form(wrapper) == "around" for wrapper in _chain(root.get_submodule(name))):
        raise TargetError(
            f"{method.name}: {name} is wrapped by a method that acts on all that it gives. Merge or detach that first"
        )


def refuse_uneven(setting: str, value: int, layers: Mapping[str, Any], sides: tuple[Side, ...]) -> None:
    """Refuse a setting that must divide the sizes of the chosen layers.

    Raises:
        TargetError: names a layer that it does not fit, and the values that fit all.
    """
    sizes = {(name, side): size(layer, side) for name, layer in layers.items() for side in sides}
    for (name, side), number in sizes.items():
        if number % value:
            common = math.gcd(*sizes.values())
            fitting = [str(divisor) for divisor in range(1, common + 1) if common % divisor == 0]
            raise TargetError(
                f"method.{setting}={value} does not divide the {number} {side} of {name}; "
                f"dividing all chosen layers: {', '.join(fitting)}"
            )


def refuse_larger(setting: str, value: int, limits: Mapping[str, int], what: str) -> None:
    """Refuse a setting that is larger than a layer allows.

    Raises:
        TargetError: names the layer with the least limit.
    """
    least = min(limits, key=lambda name: limits[name])
    if value > limits[least]:
        raise TargetError(f"method.{setting}={value} is more than the {limits[least]:,} {what} of {least}")


def size(layer: Any, side: Side) -> int:
    """Return how many channels go into a linear or convolutional layer, or come out."""
    from torch import nn

    if isinstance(layer, nn.Conv2d):
        return layer.in_channels if side == "inputs" else layer.out_channels
    return layer.in_features if side == "inputs" else layer.out_features


def saved_path(path: str) -> str:
    """Return a layer's name in files. All published ones have CLIP's level `text_model`, transformers 5 has not."""
    part, _, name = path.partition(".")
    if part.startswith("text_encoder") and not name.startswith(("text_model.", "text_projection")):
        return f"{part}.text_model.{name}"
    return path
