"""Which of a base's layers a method acts on: presets, name endings, regular expressions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator

from inlay.errors import TargetError

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
TEXT_TARGETS = {
    "attention": r"self_attn\.(q_proj|k_proj|v_proj|out_proj)",
    "transformer": r"(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))",
}
"""The text encoder's attention, and all layers of its blocks, likewise."""

Kind = Literal["linear", "pointwise", "convolutional"]
"""What a method can wrap: linear layers; those and convolutions with a window of 1 x 1; those and all convolutions."""
KINDS: dict[Kind, str] = {
    "linear": "linear layers",
    "pointwise": "linear layers and 1 x 1 convolutions",
    "convolutional": "layers",
}


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return pattern


Expression = Annotated[str, AfterValidator(_compiles)]
"""A regular expression; a setting of this type refuses anything else."""


def _not_empty(targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not targets or (not isinstance(targets, str) and not all(targets)):
        raise ValueError(f"targets is empty; give a preset ({', '.join(PRESETS)}), name endings or an expression")
    return targets


Targets = Annotated[Expression | tuple[str, ...], AfterValidator(_not_empty)]
"""The value of a method's `targets`: a preset, a regular expression for a whole name, or name endings."""


def layers_of(module: nn.Module, kind: Kind) -> list[str]:
    """Return the names of a module's layers of a kind, those that other methods have wrapped included."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    inside: tuple[str, ...] = ()
    names = []
    for name, layer in module.named_modules():
        if name.startswith(inside):
            continue
        if isinstance(layer, BaseTunerLayer):
            inside = (*inside, f"{name}.")
            layer = layer.get_base_layer()
        if _is(layer, kind):
            names.append(name)
    return names


def _is(layer: Any, kind: Kind) -> bool:
    from torch import nn

    if isinstance(layer, nn.Conv2d):
        return kind == "convolutional" or (kind == "pointwise" and layer.kernel_size == (1, 1) and layer.groups == 1)
    return isinstance(layer, nn.Linear)


def choose(unet: nn.Module, targets: str | tuple[str, ...], kind: Kind) -> list[str]:
    """Return the names of the denoiser's layers that ``targets`` means, among those of a kind.

    Raises:
        TargetError: there are none, or a name ending has none.
    """
    names = layers_of(unet, kind)
    if not names:
        raise TargetError(f"method.targets: the denoiser has no {KINDS[kind]}")
    if not isinstance(targets, str):
        absent = [target for target in targets if not any(_ends(name, target) for name in names)]
        if absent:
            raise TargetError(
                f"method.targets: none of the denoiser's {KINDS[kind]} ends in {', '.join(map(repr, absent))}; "
                f"{KINDS[kind]} end in: {_endings(names)}"
            )
        return [name for name in names if any(_ends(name, target) for target in targets)]
    if targets in PRESETS:
        chosen = [name for name in names if re.search(rf"(^|\.)({PRESETS[targets]})$", name)]
        if not chosen:
            raise TargetError(
                f"method.targets={targets}: the denoiser has no such {KINDS[kind]}; "
                f"{KINDS[kind]} end in: {_endings(names)}"
            )
        return chosen
    chosen = [name for name in names if re.fullmatch(targets, name)]
    if not chosen:
        raise TargetError(
            f"method.targets={targets!r} is neither a preset ({', '.join(PRESETS)}) nor an expression that "
            f"matches the whole name of one of its {KINDS[kind]}, such as {names[0]}"
        )
    return chosen


def choose_text(text_encoder: nn.Module, preset: str = "attention") -> list[str]:
    """Return the names of a text encoder's layers that a preset of :data:`TEXT_TARGETS` means.

    Raises:
        TargetError: there are none.
    """
    ends = TEXT_TARGETS[preset]
    names = [name for name in layers_of(text_encoder, "linear") if re.search(rf"(^|\.)({ends})$", name)]
    if not names:
        raise TargetError("method.text_encoder: the base's text encoder has no CLIP attention layers")
    return names


def _endings(names: list[str]) -> str:
    """Return what layer names end in: the last word, with the numbers behind it."""
    return ", ".join(sorted({re.sub(r".*?([a-zA-Z_]\w*(\.\d+)*)$", r"\1", name) for name in names}))


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")
