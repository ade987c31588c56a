"""Adapter, LoRA and prefix together, each behind a gate that the block's input opens (UniPELT, arXiv 2110.07577)."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from inlay.errors import TargetError
from inlay.methods.attention import FusionGuard, attentions, of_kind
from inlay.methods.contract import Method, pick
from inlay.methods.layer_taps import OutputTap, Tap, TapAttachment
from inlay.methods.prefix import Prefix
from inlay.methods.projections import Projection, added, projections

if TYPE_CHECKING:
    from torch import Tensor, nn

Size = Annotated[int, Field(ge=1)] | None
Gate = Callable[[], "Tensor"]
"""Gives one part's gate for the input that its block is working on, [B, 1, 1]."""


class Gated(Method):
    """Adapters, LoRA and prefixes in every transformer block, each behind a gate that the block's input opens."""

    name: Literal["gated"] = "gated"
    adapter_width: Size = 24
    """m, the bottleneck of the adapters, which read cross-attention's result and add to it; null for no adapters."""
    lora_rank: Size = 4
    """r of the low-rank updates of queries, keys, values and outputs in all attention; null for none."""
    prefix_length: Size = 10
    """Number of vectors before the keys, and before the values, of cross-attention; null for none."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "gated.safetensors"
    learning_rate: ClassVar[float] = 1e-3
    merges: ClassVar[bool] = False

    @property
    def starts_at_base(self) -> bool:
        """Without prefixes: their vectors take part in the softmax from the first step."""
        return self.prefix_length is None

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of `adapter`, `lora` and `prefix` that there are, in the order of their gates."""
        sizes = {"adapter": self.adapter_width, "lora": self.lora_rank, "prefix": self.prefix_length}
        return tuple(part for part, size in sizes.items() if size is not None)

    @model_validator(mode="after")
    def _gates_something(self) -> Gated:
        if not self.parts:
            raise ValueError("adapter_width, lora_rank and prefix_length are all null; give a size to one at least")
        return self

    def attach(self, components: Mapping[str, nn.Module]) -> GatedAttachment:
        """Set parts and gates into every transformer block; see :meth:`Method.attach`."""
        from inlay.methods.blocks import find_blocks

        unet = pick(components, ("unet",))["unet"]
        blocks = {block.name: block.module for block in find_blocks(unet, "transformer")}
        if not blocks:
            raise TargetError(
                f"gated: the denoiser, a {type(unet).__name__}, has no blocks of the kind that gates know "
                "(diffusers' BasicTransformerBlock)"
            )
        if self.parts != ("lora",):
            of_kind(attentions(unet), "cross")  # refuses where adapters and prefixes would find no place
        return GatedAttachment(self, unet, blocks)


class GatedAttachment(TapAttachment):
    """A block's gates, `<block>.gates` in the saved file with one row a part, and the parts that they open.

    The prefixes are an attachment of their own; a gate scales the rows that they put before keys and values.
    """

    def __init__(self, method: Gated, unet: nn.Module, blocks: Mapping[str, Any]):
        """Begin with gates half open, and with adapters and low-rank updates that give nothing yet."""
        from inlay.methods.gates import Gates, GateTap

        self.method: Gated = method
        self._gates = {name: Gates(block.dim, len(method.parts)) for name, block in blocks.items()}
        self._prefixes = None
        if method.prefix_length is not None:
            self._prefixes = Prefix(length=method.prefix_length).attach({"unet": unet})
        pieces: dict[str, nn.Module] = {}
        taps: list[Tap] = []
        for name, block in blocks.items():
            gates = self._gates[name]
            opened = {part: functools.partial(gates.of, index) for index, part in enumerate(method.parts)}
            pieces[f"{name}.gates"] = gates
            taps.append(GateTap(block, gates))
            for child in ("attn1", "attn2"):
                if getattr(block, child) is not None:
                    more_pieces, more_taps = _parts(method, block, child, opened)
                    pieces |= {f"{name}.{child}.{piece}": module for piece, module in more_pieces.items()}
                    taps += more_taps
        super().__init__(method, unet, pieces, taps)

    def gates(self) -> dict[str, dict[str, float]]:
        """Return for each block how far each part's gate stood open of late, from 0 to 1.

        The mean is over pictures and over about the last 100 training passes; empty before the first.
        """
        return {
            name: dict(zip(self.method.parts, gates.recent.tolist(), strict=True))
            for name, gates in self._gates.items()
            if gates.recent is not None
        }

    def parameters(self) -> dict[str, nn.Parameter]:
        prefixes = {} if self._prefixes is None else self._prefixes.parameters()
        return {**super().parameters(), **prefixes}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        with super().disabled(), nullcontext() if self._prefixes is None else self._prefixes.disabled():
            yield

    def detach(self) -> None:
        if self._prefixes is not None:
            self._prefixes.detach()
        super().detach()
        self._gates = {}

    def merge(self) -> None:
        raise TargetError(
            "gated: its gates open by what a block is given, and no weights of the base do that; keep its file beside "
            "the base, or tune with a method that merges, such as lora"
        )

    def metadata(self) -> dict[str, str]:
        """Return :meth:`gates`, where training has made them, for whoever wants to know which part a block uses."""
        gates = {name: {part: round(value, 4) for part, value in parts.items()} for name, parts in self.gates().items()}
        return {"inlay.gates": json.dumps(gates)} if gates else {}


def _parts(method: Gated, block: Any, child: str, opened: Mapping[str, Gate]) -> tuple[dict[str, nn.Module], list[Tap]]:
    """Return the weights in and around one attention layer of a block, and the taps through which they act."""
    from inlay.methods.bottleneck import TokenBottleneck

    layer = getattr(block, child)
    pieces: dict[str, nn.Module] = {}
    taps: list[Tap] = [FusionGuard({child: layer})]
    if method.lora_rank is not None:
        for name, place in projections(layer).items():
            lora = pieces[f"{name}.lora"] = _low_rank(place, method.lora_rank)
            taps.append(OutputTap(place.parent, place.child, functools.partial(_updated, opened["lora"], lora)))
    if method.prefix_length is not None and layer.is_cross_attention:
        scaled = functools.partial(_scaled, opened["prefix"], method.prefix_length)
        taps += [OutputTap(layer, name, scaled) for name in ("to_k", "to_v")]
    if method.adapter_width is not None and layer.is_cross_attention:
        adapter = TokenBottleneck(layer.out_dim, method.adapter_width, layer.out_dim, "silu", 1.0)
        adapter.up.weight.data.zero_()
        adapter.up.bias.data.zero_()
        pieces["adapter"] = adapter
        taps.append(OutputTap(block, child, functools.partial(_adapted, opened["adapter"], adapter)))
    return pieces, taps


def _low_rank(place: Projection, rank: int) -> nn.ParameterDict:
    """Return A [rank, inputs] and B [outputs, rank] as LoRA begins (arXiv 2106.09685, section 4.1)."""
    import torch
    from torch import nn

    weights = nn.ParameterDict({"A": torch.empty(rank, place.inputs), "B": torch.zeros(place.outputs, rank)})
    nn.init.kaiming_uniform_(weights["A"], a=math.sqrt(5))
    return weights


def _updated(gate: Gate, lora: Any, x: Tensor, output: Tensor) -> Tensor:
    """x [B, L, inputs], output [B, L, outputs] => output + gate * B A x; the gate stands in LoRA's scale's place."""
    import torch.nn.functional as F

    change = F.linear(F.linear(x.to(lora["A"].dtype), lora["A"]), lora["B"])
    return added(output, gate() * change)


def _scaled(gate: Gate, length: int, x: Tensor, output: Tensor) -> Tensor:
    """Scale the vectors that the prefix has put before the keys or values, the first rows of [B, length + L, width]."""
    import torch

    return torch.cat([gate().to(output.dtype) * output[:, :length], output[:, length:]], dim=1)


def _adapted(gate: Gate, adapter: Any, x: Tensor, output: Tensor) -> Tensor:
    """Cross-attention's result [B, L, width] => the result + gate * adapter(result)."""
    return output + (gate() * adapter(output)).to(output.dtype)
