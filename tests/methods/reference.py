"""The data paths of diffusers' blocks spelled out, with bridges in them: what hooks must reproduce."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Bridges = Sequence[tuple[str, str, Callable[[Tensor], Tensor]]]
"""(input position, output position, function), in the order of attachment."""


class _Positions:
    """Lets bridges read and write at each position in turn; each reads before it writes."""

    def __init__(self, bridges: Bridges):
        self.bridges = bridges
        self.read: dict[int, Tensor] = {}

    def __call__(self, position: str, value: Tensor) -> Tensor:
        for index, (first, second, function) in enumerate(self.bridges):
            if first == position:
                self.read[index] = value
            if second == position:
                value = value + function(self.read[index])
        return value


def transformer(block: Any, x: Tensor, context: Tensor, bridges: Bridges) -> Tensor:
    """``BasicTransformerBlock`` with plain layer norms. The block's own hooks must be gone."""
    at = _Positions(bridges)
    sa_in = at("SA_in", x)
    sa_out = at("SA_out", block.attn1(block.norm1(sa_in)))
    ca_in = at("CA_in", sa_out + sa_in)
    context = at("CA_c", context)
    ca_out = at("CA_out", block.attn2(block.norm2(ca_in), encoder_hidden_states=context))
    ffn_in = at("FFN_in", ca_out + ca_in)
    ffn_out = at("FFN_out", block.ff(block.norm3(ffn_in)))
    return at("Trans_out", ffn_out + ffn_in)


def pixart(block: Any, x: Tensor, context: Tensor, modulation: Tensor, bridges: Bridges) -> Tensor:
    """``BasicTransformerBlock`` of PixArt: ``ada_norm_single``, with gates on self-attention and feed-forward."""
    at = _Positions(bridges)
    table = block.scale_shift_table[None] + modulation.reshape(x.shape[0], 6, -1)
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = table.chunk(6, dim=1)
    sa_in = at("SA_in", x)
    sa_out = block.attn1(block.norm1(sa_in) * (1 + scale_1) + shift_1)
    ca_in = at("CA_in", gate_1 * sa_out + sa_in)
    context = at("CA_c", context)
    ca_out = at("CA_out", block.attn2(ca_in, encoder_hidden_states=context))
    ffn_in = at("FFN_in", ca_out + ca_in)
    ffn_out = block.ff(block.norm2(ffn_in) * (1 + scale_2) + shift_2)
    return at("Trans_out", gate_2 * ffn_out + ffn_in)


def residual(block: Any, x: Tensor, time: Tensor, bridges: Bridges) -> Tensor:
    """``ResnetBlock2D`` with the time embedding added."""
    at = _Positions(bridges)
    res_in = at("Res_in", x)
    h = block.conv1(block.nonlinearity(block.norm1(res_in)))
    h = h + block.time_emb_proj(block.nonlinearity(time))[:, :, None, None]
    h = block.conv2(block.nonlinearity(block.norm2(h)))
    skip = res_in if block.conv_shortcut is None else block.conv_shortcut(res_in)
    return at("Res_out", skip + h)
