"""Where a base's and a method's parameters lie: by block of the network, and by kind of layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

KINDS = {
    "attn1": "self-attention",
    "attn2": "cross-attention",
    "ff": "feed-forward",
    "resnets": "residual blocks",
    "downsamplers": "resampling",
    "upsamplers": "resampling",
    "proj_in": "transformer projections",
    "proj_out": "transformer projections",
    "attentions": "transformer blocks, the rest",
    "time_embedding": "time embedding",
    "self_attn": "text attention",
    "mlp": "text feed-forward",
    "embeddings": "text embeddings",
    "encoder": "text norms",
    "final_layer_norm": "text norms",
    "conv_in": "input and output",
    "conv_norm_out": "input and output",
    "conv_out": "input and output",
    "patches": "input and output",
    "pos_embed": "input and output",
    "output": "input and output",
    "proj_out_1": "input and output",
    "proj_out_2": "input and output",
    "attention": "self-attention",
    "norm1": "norms and what they are told",
    "norm2": "norms and what they are told",
    "positions": "positions",
    "class_embedding": "class embedding",
}
"""What a parameter is part of, by the first of these words among the parts of its name."""

ORDER = (
    "text_encoder",
    "conv_in",
    "patches",
    "pos_embed",
    "positions",
    "time_embedding",
    "class_embedding",
    "down_blocks",
    "mid_block",
    "up_blocks",
    "blocks",
    "transformer_blocks",
)
LAST = ("conv_norm_out", "conv_out", "output", "proj_out_1", "proj_out_2")


@dataclass(frozen=True)
class Group:
    """Parameters that belong together."""

    name: str
    base_parameters: int
    trainable_parameters: int


def block(name: str) -> str:
    """Return the block of the denoiser, or the other part of the base, that a parameter lies in, by its name."""
    part, first, second = [*name.split("."), "", ""][:3]
    if part != "unet":
        return part.replace("_", " ")
    if first not in (*ORDER, *LAST):
        return "other"  # parameters that a method does not keep by place
    return f"{first}.{second}" if second.isdecimal() else first


def kind(name: str) -> str:
    """Return what a parameter is part of, by its name."""
    words = name.split(".")
    found = [what for word, what in KINDS.items() if word in words]
    return found[0] if found else "other"


def _way_through(name: str) -> int:
    """Return when data passes a parameter, so that tables read from the input to the output."""
    words = name.split(".")
    return next((place for place, word in enumerate(ORDER) if word in words), len(ORDER))


def groups(key: Callable[[str], str], base: Mapping[str, int], trained: Mapping[str, int]) -> tuple[Group, ...]:
    """Sum parameters by where they lie, in the order in which data pass them.

    Args:
        key: gives the group of a name: :func:`block` or :func:`kind`.
        base: sizes of the base's parameters by name.
        trained: sizes of the trained ones.
    """
    names = dict.fromkeys(key(name) for name in sorted((*base, *trained), key=_way_through))
    return tuple(
        Group(
            group,
            sum(count for name, count in base.items() if key(name) == group),
            sum(count for name, count in trained.items() if key(name) == group),
        )
        for group in names
    )
