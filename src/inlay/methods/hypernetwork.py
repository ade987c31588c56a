"""Hypernetworks as Stable Diffusion knows them: small networks on what keys and values are computed from."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from inlay.errors import TargetError
from inlay.methods.attention import FusionGuard, attentions, of_kind
from inlay.methods.contract import Method, pick
from inlay.methods.layer_taps import InputTap, Tap, TapAttachment

if TYPE_CHECKING:
    from torch import Tensor, nn

Activation = Literal[
    "linear",
    "relu",
    "leakyrelu",
    "elu",
    "swish",
    "tanh",
    "sigmoid",
    "celu",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "logsigmoid",
    "mish",
    "relu6",
    "selu",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanhshrink",
]
A1111_INITS = {
    "normal": "Normal",
    "xavier_uniform": "XavierUniform",
    "xavier_normal": "XavierNormal",
    "kaiming_uniform": "KaimingUniform",
    "kaiming_normal": "KaimingNormal",
}
"""Initialisations by their names in A1111's files."""


class Hypernetwork(Method):
    """Small networks that change the text states before keys and values, x + strength * MLP(x), as A1111 knows them."""

    name: Literal["hypernetwork"] = "hypernetwork"
    widths: Literal["cross", "all"] | Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = "cross"
    """Layers of the same context width share one network for keys and one for values. `cross`: the layers that attend
    to the text. `all`: also those that attend to the picture, by their widths. A list of widths: every layer, of
    either kind, whose context has one of them, as in A1111's files."""
    layer_structure: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=2)] = (1, 2, 1)
    """Widths inside a network as multiples of the context's width, from its input to its output."""
    activation: Activation = "relu"
    """Between the layers; `linear` for none, and `swish` is, as in A1111, torch's Hardswish."""
    activate_output: bool = False
    """Put the activation behind the last layer too."""
    layer_norm: bool = False
    """Put a layer norm behind every layer and its activation."""
    dropout_structure: tuple[Annotated[float, Field(ge=0, lt=1)], ...] | None = None
    """Probability of dropping out behind each layer; as long as `layer_structure`, with 0 at both ends. Null for
    none."""
    init: Literal["zero", "normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"] = "zero"
    """How weights begin. `zero`: as PyTorch initialises layers, and the last one at zero, so that step 0 is the base.
    The others are A1111's; its default is `normal`, with a standard deviation of 0.01."""
    strength: float = 1.0
    """Factor of the effect when not training; training always uses 1."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "hypernetwork.safetensors"
    learning_rate: ClassVar[float] = 1e-4
    merges: ClassVar[bool] = False

    @property
    def starts_at_base(self) -> bool:
        """With the last layer at zero: its activation is refused then where it does not keep zero."""
        return self.init == "zero" or self.strength == 0

    @field_validator("layer_structure")
    @classmethod
    def _ends_are_one(cls, structure: tuple[float, ...]) -> tuple[float, ...]:
        if structure[0] != 1 or structure[-1] != 1:
            raise ValueError(f"{list(structure)} must begin and end with 1: a network returns what its input is like")
        return structure

    @model_validator(mode="after")
    def _consistent(self) -> Hypernetwork:
        structure = self.dropout_structure
        if structure is not None and (len(structure) != len(self.layer_structure) or structure[0] or structure[-1]):
            raise ValueError(
                f"dropout_structure={list(structure)} must be as long as layer_structure={list(self.layer_structure)} "
                "and have 0 at both ends"
            )
        moves_zero = self.activation in ("sigmoid", "hardsigmoid", "logsigmoid", "softplus")
        if self.init == "zero" and self.activate_output and moves_zero and not self.layer_norm:
            raise ValueError(
                f"init=zero promises that step 0 is the base, but activate_output with {self.activation} makes "
                "something else of zero; give another init or another activation"
            )
        return self

    def attach(self, components: Mapping[str, nn.Module]) -> HypernetworkAttachment:
        """Set networks before the keys and values; see :meth:`Method.attach`."""
        unet = pick(components, ("unet",))["unet"]
        layers = attentions(unet)
        cross = of_kind(layers, "cross")
        if isinstance(self.widths, tuple):
            there = sorted({layer.cross_attention_dim for layer in layers.values()})
            absent = [str(width) for width in self.widths if width not in there]
            if absent:
                raise TargetError(
                    f"method.widths: no attention layer's context has width {', '.join(absent)}; "
                    f"widths: {', '.join(map(str, there))}"
                )
            layers = {name: layer for name, layer in layers.items() if layer.cross_attention_dim in self.widths}
        return HypernetworkAttachment(self, unet, cross if self.widths == "cross" else layers)


class HypernetworkAttachment(TapAttachment):
    """Networks by context width: `<width>.key` and `<width>.value`."""

    def __init__(self, method: Hypernetwork, unet: nn.Module, layers: Mapping[str, Any]):
        """Make a network for the keys and one for the values of each width."""
        from torch import nn

        self.method: Hypernetwork = method
        self.strength = method.strength
        """Factor of the effect when not training; may be changed at any time."""
        widths = dict.fromkeys(layer.cross_attention_dim for layer in layers.values())
        pieces: dict[str, nn.Module] = {
            f"{width}.{kind}": nn.ModuleDict({"linear": _network(method, width)})
            for width in widths
            for kind in ("key", "value")
        }
        taps: list[Tap] = [FusionGuard(layers)]
        for layer in layers.values():
            for kind, child in (("key", "to_k"), ("value", "to_v")):
                network = pieces[f"{layer.cross_attention_dim}.{kind}"]
                taps.append(InputTap(layer, child, functools.partial(self._changed, network)))
        super().__init__(method, unet, pieces, taps)

    def _changed(self, network: Any, x: Tensor) -> Tensor:
        """Context [B, L, width] => the same shape, in x's precision."""
        first = next(network.parameters())
        change = network["linear"](x.to(first.dtype)).to(x.dtype)
        return x + (change if network.training else self.strength * change)

    def merge(self) -> None:
        raise TargetError(
            "hypernetwork: its activations cannot be expressed in the base's weights; keep it as a file beside the base"
        )

    def metadata(self) -> dict[str, str]:
        """Return what A1111 stores beside the weights, by its names, each as JSON."""
        method = self.method
        dropout = list(method.dropout_structure or [0.0] * len(method.layer_structure))
        facts = {
            "layer_structure": [int(part) if part == int(part) else part for part in method.layer_structure],
            "activation_func": method.activation,
            "is_layer_norm": method.layer_norm,
            "weight_initialization": A1111_INITS.get(method.init, "Normal"),
            "use_dropout": any(dropout),
            "dropout_structure": dropout,
            "last_layer_dropout": dropout[-2] > 0,
            "activate_output": method.activate_output,
        }
        return {f"hypernetwork.{key}": json.dumps(value) for key, value in facts.items()}


def _network(method: Hypernetwork, width: int) -> nn.Sequential:
    """Return a network as A1111 builds it: its layers' numbers count activations, norms and dropouts too."""
    from torch import nn

    from inlay.methods.affine import Affine, Norm

    layers: list[nn.Module] = []
    sizes = [int(width * part) for part in method.layer_structure]
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers.append(Affine(inputs, outputs))
        last = index == len(sizes) - 2
        if method.activation != "linear" and (method.activate_output or not last):
            layers.append(_activation(method.activation))
        if method.layer_norm:
            layers.append(Norm(outputs))
        if method.dropout_structure and method.dropout_structure[index + 1] > 0:
            layers.append(nn.Dropout(method.dropout_structure[index + 1]))
    _initialise(method, [layer for layer in layers if isinstance(layer, (Affine, Norm))])
    return nn.Sequential(*layers)


def _activation(name: str) -> nn.Module:
    """Return the layer of torch that has the name in lower case; `swish` is A1111's own."""
    from torch import nn

    if name == "swish":
        return nn.Hardswish()
    return next(getattr(nn, kind) for kind in nn.modules.activation.__all__ if kind.lower() == name)()


def _initialise(method: Hypernetwork, layers: list[Any]) -> None:
    from torch import nn

    if method.init == "zero":
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
        return
    leaky: Any = "leaky_relu" if method.activation == "leakyrelu" else "relu"
    fill = {
        "normal": functools.partial(nn.init.normal_, std=0.01),
        "xavier_uniform": nn.init.xavier_uniform_,
        "xavier_normal": nn.init.xavier_normal_,
        "kaiming_uniform": functools.partial(nn.init.kaiming_uniform_, nonlinearity=leaky),
        "kaiming_normal": functools.partial(nn.init.kaiming_normal_, nonlinearity=leaky),
    }
    for layer in layers:
        # A1111 draws a norm's weight, a vector, as if the normal initialisation had been asked for.
        fill["normal" if layer.weight.dim() == 1 else method.init](layer.weight)
        nn.init.zeros_(layer.bias)
