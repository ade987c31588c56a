"""Where a denoiser's transformer and residual blocks are, and where on their data path each position lies.

A position is a tensor on a block's data path (arXiv 2303.18181). In a transformer block with input ``x``:

    SA_in  = x                 SA_out  = attn1(norm1(SA_in))
    CA_in  = SA_out + SA_in    CA_out  = attn2(norm2(CA_in), context = CA_c)
    FFN_in = CA_out + CA_in    FFN_out = ff(norm3(FFN_in))
    Trans_out = FFN_out + FFN_in

and in a residual block ``Res_in`` is its input and ``Res_out`` its output, after the skip's addition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

GATED = ("ada_norm_zero", "ada_norm_single")
"""Norms that multiply what self-attention and feed-forward give before it is added to the residual stream."""


@dataclass(frozen=True)
class Argument:
    """One of the arguments of a module's forward, which callers give by place or by name."""

    index: int
    name: str


@dataclass(frozen=True)
class Site:
    """How a position's tensor is seen from outside of a block's forward."""

    module: nn.Module
    """The block or the part of it that the tensor enters or leaves."""
    argument: Argument | None
    """Which argument the tensor is; None for the module's result."""
    width: int
    """Size of its feature axis: the last of a transformer block's tensors, the second of a residual block's."""
    writable: bool = True
    """Whether what is added there reaches everything downstream, the skips too."""
    adds_to: str | None = None
    """The position to which the block adds the tensor that is seen: their sum is the position's tensor. What is added
    to a summand is added to the sum, so writing needs the summand alone."""


@dataclass(frozen=True)
class Block:
    """A transformer or residual block of a denoiser."""

    name: str
    """Its place in the denoiser."""
    module: nn.Module
    sites: Mapping[str, Site]
    """Its positions, in the order of the data path."""
    why_not: Mapping[str, str]
    """Why positions are absent or can only be read."""
    groups: Mapping[str, int]
    """Groups of the block's own group norms at its positions; empty for a transformer block."""


def find_blocks(denoiser: nn.Module, kind: Literal["transformer", "residual"]) -> list[Block]:
    """Return a denoiser's blocks of one kind, in the order of its modules.

    Known are ``BasicTransformerBlock``, of which Stable Diffusion 1.x, 2.x and SDXL, DiT and PixArt are made, and
    ``ResnetBlock2D``, without those that change the resolution.
    """
    named = denoiser.named_modules()
    if kind == "transformer":
        return [_transformer(name, module) for name, module in named if isinstance(module, BasicTransformerBlock)]
    return [
        _residual(name, module)
        for name, module in named
        if isinstance(module, ResnetBlock2D) and not (module.up or module.down)
    ]


def _residual(name: str, block: ResnetBlock2D) -> Block:
    return Block(
        name=name,
        module=block,
        sites={
            "Res_in": Site(block, Argument(0, "input_tensor"), block.in_channels),
            "Res_out": Site(block, None, block.out_channels),
        },
        why_not={},
        groups={"Res_in": block.norm1.num_groups, "Res_out": block.norm2.num_groups},
    )


def _transformer(name: str, block: BasicTransformerBlock) -> Block:
    """Find the positions of ``BasicTransformerBlock.forward`` under each of its norms."""
    gated = block.norm_type in GATED
    fused = "fuser" in dict(block.named_children())
    sites = {"SA_in": Site(block, Argument(0, "hidden_states"), block.dim)}
    why_not: dict[str, str] = {}
    if gated:
        gate = f"its norms ({block.norm_type}) scale what {{}} gives before it joins the residual stream"
        why_not |= {"SA_out": gate.format("self-attention"), "CA_in": gate.format("self-attention")}
        why_not |= {"FFN_out": gate.format("the feed-forward")}
    else:
        sites["SA_out"] = Site(block.attn1, None, block.dim, writable=False)
        if fused:
            why_not["CA_in"] = "GLIGEN's layer lies between self-attention's skip and it"

    # The residual stream behind self-attention: a sum that is known before it is made, or the input of what comes next.
    position = "FFN_in" if block.attn2 is None else "CA_in"
    if gated or fused:
        # PixArt's block uses norm2 before the feed-forward, and no norm before cross-attention.
        if block.norm_type == "ada_norm_single":
            following = block.norm2 if block.attn2 is None else block.attn2
        else:
            following = block.norm3 if block.attn2 is None else block.norm2
        assert following is not None
        argument = Argument(0, "hidden_states" if following is block.attn2 else "input")
        sites[position] = Site(following, argument, block.dim, writable=False)
        why_not.setdefault(position, why_not["CA_in"])
    else:
        sites[position] = Site(block.attn1, None, block.dim, adds_to="SA_in")

    if block.attn2 is None:
        why_not |= dict.fromkeys(("CA_in", "CA_c", "CA_out"), "it has no cross-attention")
    else:
        if block.attn2.is_cross_attention:
            context = Argument(1, "encoder_hidden_states")
            sites["CA_c"] = Site(block.attn2, context, block.attn2.cross_attention_dim)
        else:
            why_not["CA_c"] = "its second attention is self-attention and sees no text"
        sites["CA_out"] = Site(block.attn2, None, block.dim, writable=False)
        sites["FFN_in"] = Site(block.attn2, None, block.dim, adds_to="CA_in")
    if not gated:
        sites["FFN_out"] = Site(block.ff, None, block.dim, writable=False)
    sites["Trans_out"] = Site(block, None, block.dim)
    return Block(name, block, sites, why_not, groups={})
