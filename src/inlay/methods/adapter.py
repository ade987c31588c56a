"""Bottleneck adapters at any position of the denoiser's blocks (arXiv 2303.18181): T <- T + s A(input)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from inlay.errors import TargetError
from inlay.methods.contract import Attachment, Method, pick
from inlay.methods.targets import Expression

if TYPE_CHECKING:
    from torch import nn

    from inlay.methods.blocks import Block
    from inlay.methods.bridges import Bridge

Input = Literal["SA_in", "SA_out", "CA_in", "CA_out", "CA_c", "FFN_in", "FFN_out", "Trans_out", "Res_in", "Res_out"]
Output = Literal["SA_in", "CA_in", "FFN_in", "Trans_out", "CA_c", "Res_in", "Res_out"]

PATHS: tuple[tuple[str, ...], ...] = (
    ("SA_in", "SA_out", "CA_in", "CA_out", "FFN_in", "FFN_out", "Trans_out"),
    ("CA_c",),
    ("Res_in", "Res_out"),
)
"""Positions that an adapter can connect, each in the order in which a block computes them."""
SUMS = {"SA_out": "CA_in", "CA_out": "FFN_in", "FFN_out": "Trans_out"}
"""What a block adds to its residual stream, and the position where the sum is."""
PAIRS: tuple[tuple[str, str], ...] = tuple(
    (first, second)
    for path in PATHS
    for index, first in enumerate(path)
    for second in path[index:]
    if second not in SUMS
)
"""The 20 pairs (input, output)."""
WIDTHS = {"transformer": 60, "residual": 3}
"""Default bottlenecks: about 1.5 million parameters on Stable Diffusion 1, as in the publication."""


def _not_a_summand(output: object) -> object:
    if isinstance(output, str) and output in SUMS:
        raise ValueError(
            f"{output} cannot be an output of its own: the block adds it to the residual stream, so writing to it is "
            f"writing to the sum; give output={SUMS[output]}"
        )
    return output


class Adapter(Method):
    """Bottlenecks that read one position of every block and add to another; step 0 is the base."""

    name: Literal["adapter"] = "adapter"
    input: Input = "CA_out"
    """The tensor that adapters read. In a transformer block: `SA`, `CA`, `FFN` (self-attention, cross-attention,
    feed-forward) with `_in` for the residual stream before it and `_out` for its result before it is added to that
    stream; `CA_c`, the text states that cross-attention sees; `Trans_out`, the block's result. In a residual block
    `Res_in` and `Res_out`, before and after all of it."""
    output: Annotated[Output, BeforeValidator(_not_a_summand)] = "FFN_in"
    """The tensor that they add to, not before the input on the data path. Everything downstream sees the change."""
    width: Annotated[int, Field(ge=1)] | None = None
    """m, the width of the bottleneck; by default 60, in residual blocks 3. Not together with `budget`."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """Instead of `width`: the largest bottleneck with which all adapters together have at most so many parameters."""
    activation: Literal["relu", "sigmoid", "silu", "identity"] = "relu"
    """Between the two layers."""
    scale: float = 1.0
    """s, by which the result is multiplied; the publication compares 0.5, 1, 2 and 4."""
    init: Literal["zero", "default"] = "zero"
    """How the second layer begins: at zero, so that step 0 is the base, or as PyTorch initialises layers, as in the
    publication's code."""
    blocks: Expression | None = None
    """Regular expression that a block's name must contain, for instance `^up_blocks`. By default all blocks."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "adapter.safetensors"
    learning_rate: ClassVar[float] = 1e-4
    merges: ClassVar[bool] = False

    @property
    def starts_at_base(self) -> bool:
        """With the second layer at zero."""
        return self.init == "zero"

    @field_validator("scale")
    @classmethod
    def _acts(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("with scale=0 adapters would do nothing and learn nothing; give another number")
        return scale

    @model_validator(mode="after")
    def _consistent(self) -> Adapter:
        if self.width is not None and self.budget is not None:
            raise ValueError(f"width={self.width} and budget={self.budget} both say how large adapters are; give one")
        if (self.input, self.output) not in PAIRS:
            raise ValueError(f"{self.input} -> {self.output}: {self._why_no_pair()}")
        return self

    def _why_no_pair(self) -> str:
        [path] = [path for path in PATHS if self.input in path]
        allowed = ", ".join(second for first, second in PAIRS if first == self.input)
        if self.output in path:
            reason = f"{self.output} is computed before {self.input}, so it cannot depend on it"
        elif "CA_c" in (self.input, self.output):
            reason = "CA_c has one vector for each word of the text and the other has one for each place of the picture"
        else:
            reason = "one lies in transformer blocks and the other in residual blocks"
        return f"{reason}; allowed for input={self.input}: {allowed}"

    @property
    def kind(self) -> Literal["transformer", "residual"]:
        """The blocks that it addresses."""
        return "residual" if self.input in PATHS[2] else "transformer"

    def attach(self, components: Mapping[str, nn.Module]) -> AdapterAttachment:
        """Set one adapter into every chosen block; see :meth:`Method.attach`."""
        denoiser = pick(components, ("unet",))["unet"]
        blocks = self._choose(denoiser)
        return AdapterAttachment(self, blocks, self._width(blocks))

    def _choose(self, denoiser: nn.Module) -> list[Block]:
        from inlay.methods.blocks import find_blocks

        found = find_blocks(denoiser, self.kind)
        if not found:
            known = {"transformer": "BasicTransformerBlock", "residual": "ResnetBlock2D"}[self.kind]
            raise TargetError(
                f"method.input={self.input}: the denoiser, a {type(denoiser).__name__}, has no {self.kind} blocks of "
                f"the kind that adapters know (diffusers' {known})"
            )
        chosen = [block for block in found if re.search(self.blocks or "", block.name)]
        if not chosen:
            raise TargetError(
                f"method.blocks={self.blocks!r} is found in no name of a {self.kind} block; "
                f"names look like {found[0].name}"
            )
        for block in chosen:
            self._check_positions(block)
        return chosen

    def _check_positions(self, block: Block) -> None:
        if self.input not in block.sites:
            key, position, can = "input", self.input, list(block.sites)
        elif self.output not in block.sites or not block.sites[self.output].writable:
            key, position = "output", self.output
            can = [other for other, site in block.sites.items() if site.writable]
        else:
            return
        raise TargetError(
            f"method.{key}={position} cannot be had in the block {block.name}: {block.why_not[position]}; "
            f"allowed there: {', '.join(can)}"
        )

    def _width(self, blocks: Sequence[Block]) -> int:
        """Return the bottleneck's width; every adapter's size is linear in it."""
        if self.budget is None:
            return self.width or WIDTHS[self.kind]
        empty, one = self._size(blocks, 0), self._size(blocks, 1)
        if self.budget < one:
            raise TargetError(
                f"method.budget={self.budget}: adapters in {len(blocks)} blocks have {one} parameters at least, with "
                "a bottleneck of 1; give more, or fewer blocks by method.blocks"
            )
        return (self.budget - empty) // (one - empty)

    def _size(self, blocks: Sequence[Block], width: int) -> int:
        from inlay.methods.bottleneck import PixelBottleneck, TokenBottleneck

        form = PixelBottleneck if self.kind == "residual" else TokenBottleneck
        return sum(form.size(block.sites[self.input].width, width, block.sites[self.output].width) for block in blocks)


class AdapterAttachment(Attachment):
    """One adapter in each of some blocks."""

    def __init__(self, method: Adapter, blocks: Sequence[Block], width: int):
        """Insert adapters behind those that are there; ``width`` is that of the bottleneck."""
        from inlay.methods.bridges import Bridge

        self.method: Adapter = method
        self.width = width
        self._bridges: dict[str, tuple[nn.Module, Bridge]] = {}
        for block in blocks:
            bridge = Bridge(block, method.input, method.output, _function(method, block, width))
            self._bridges[f"unet.{block.name}"] = (block.module, bridge)

    @property
    def components(self) -> frozenset[str]:
        return frozenset({"unet"})

    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"{block}.adapter.{name}": parameter
            for block, (_, bridge) in self._bridges.items()
            for name, parameter in bridge.function.named_parameters()
        }

    @contextmanager
    def disabled(self) -> Iterator[None]:
        bridges = [bridge for _, bridge in self._bridges.values()]
        before = [bridge.enabled for bridge in bridges]
        for bridge in bridges:
            bridge.enabled = False
        try:
            yield
        finally:
            for bridge, enabled in zip(bridges, before, strict=True):
                bridge.enabled = enabled

    def merge(self) -> None:
        raise TargetError(
            "adapter: no weights of the base compute what its bottlenecks add, so they cannot be merged; keep the "
            "adapter's file beside the base, or tune with a method that merges, such as lora"
        )

    def detach(self) -> None:
        from inlay.methods.bridges import remove

        for block, bridge in self._bridges.values():
            remove(block, bridge)
        self._bridges = {}

    def metadata(self) -> dict[str, str]:
        """Return the settings with the width that the budget allowed: all that is needed to attach it again."""
        resolved = self.method.model_copy(update={"width": self.width, "budget": None})
        return {"inlay.adapter": json.dumps(resolved.model_dump(mode="json"), sort_keys=True)}


def _function(method: Adapter, block: Block, width: int) -> nn.Module:
    """Return a new adapter for a block, on its device."""
    import torch

    from inlay.methods.bottleneck import PixelBottleneck, TokenBottleneck

    shape = (block.sites[method.input].width, width, block.sites[method.output].width)
    with next(block.module.parameters()).device:
        if method.kind == "residual":
            groups = block.groups[method.input]
            function = PixelBottleneck(*shape, method.activation, method.scale, groups)
        else:
            function = TokenBottleneck(*shape, method.activation, method.scale)
    if method.init == "zero":
        torch.nn.init.zeros_(function.up.weight)
        torch.nn.init.zeros_(function.up.bias)
    return function
