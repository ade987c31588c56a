"""Read one position of a block, compute, add the result to another: by hooks, without the block's code.

A block's bridges act as if each had been set into the model that the ones before it make: where several meet at a
position, they come in the order in which they were built, and each reads there before it writes. What a bridge adds to
a position reaches all that the block computes from it, skips included, and whatever other bridges read further on.

Nothing outlives a forward call of the block, so gradient checkpointing may call it again, and may break off in its
middle, as PyTorch does once everything is recomputed that the backward pass needs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from inlay.methods.blocks import Argument, Block

CHILD = "inlay_bridges"
"""Name under which a block holds its bridges, so that they move and train with the base and compilers see them."""


class Bridge(nn.Module):
    """Adds ``function(input)`` to an output position of a block."""

    def __init__(self, block: Block, input: str, output: str, function: nn.Module):
        """Build it into a block, behind the bridges that are there.

        Args:
            block: where; its sites must have both positions, and ``output`` be writable there.
            input: the position that the function reads.
            output: the position that its result is added to, in that tensor's precision.
            function: input tensor => a tensor of the output's shape.
        """
        super().__init__()
        self.input, self.output, self.function = input, output, function
        self.enabled = True
        """Switches it off without a trace; compiled models notice."""
        self.train(block.module.training)
        if CHILD not in dict(block.module.named_children()):
            block.module.add_module(CHILD, _Bridges(block))
        bridges = _bridges_of(block.module)
        bridges.built.append(self)
        bridges.install()


def remove(block: nn.Module, bridge: Bridge) -> None:
    """Take a bridge out of a block; with the last one it loses every hook."""
    bridges = _bridges_of(block)
    bridges.built = nn.ModuleList(other for other in bridges.built if other is not bridge).train(block.training)
    bridges.install()
    if not bridges.built:
        delattr(block, CHILD)


def _bridges_of(block: nn.Module) -> _Bridges:
    bridges = block.get_submodule(CHILD)
    assert isinstance(bridges, _Bridges)
    return bridges


class _Bridges(nn.Module):
    """All bridges of one block, and the hooks through which they see it."""

    def __init__(self, block: Block):
        super().__init__()
        self.built = nn.ModuleList()
        self.train(block.module.training)
        self._block = (block.module,)  # a tuple hides it: this is the block's child, not the reverse
        self._sites = dict(block.sites)
        self._summands: set[str] = set()
        self._handles: list[Any] = []
        # Of the running forward call: what bridges have read and not yet used, and the residual stream.
        self._read: dict[int, Tensor] = {}
        self._stream: dict[str, Tensor] = {}

    def install(self) -> None:
        """Hook what the present bridges need."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        read = {str(bridge.input) for bridge in self.built}
        self._summands = set()
        for position in reversed(self._sites):
            needed = self._sites[position].adds_to
            if needed is not None and position in read | self._summands:
                self._summands.add(needed)
        used = read | self._summands | {str(bridge.output) for bridge in self.built}
        places: dict[tuple[nn.Module, Argument | None], list[str]] = {}
        for position, site in self._sites.items():
            if position in used:
                places.setdefault((site.module, site.argument), []).append(position)
        if not places:
            return
        [block] = self._block
        self._handles.append(block.register_forward_pre_hook(self._forget))
        for (module, argument), positions in places.items():
            if argument is None:
                hook = partial(self._after, tuple(positions))
                self._handles.append(module.register_forward_hook(hook))
            else:
                hook = partial(self._before, tuple(positions), argument)
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        self._handles.append(block.register_forward_hook(self._forget, always_call=True))

    def _forget(self, *_: Any) -> None:
        self._read.clear()
        self._stream.clear()

    def _before(
        self, positions: tuple[str, ...], argument: Argument, module: nn.Module, args: tuple[Any, ...], kwargs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Pass an argument of a module's forward through its positions."""
        named = argument.name in kwargs
        value = kwargs[argument.name] if named else args[argument.index]
        for position in positions:
            value = self._visit(position, value)
        if named:
            return args, {**kwargs, argument.name: value}
        return (*args[: argument.index], value, *args[argument.index + 1 :]), kwargs

    def _after(self, positions: tuple[str, ...], module: nn.Module, args: Any, value: Tensor) -> Tensor:
        """Pass the result of a module's forward through its positions."""
        for position in positions:
            value = self._visit(position, value)
        return value

    def _visit(self, position: str, value: Tensor) -> Tensor:
        """Let the bridges read and write a position; ``value`` is its tensor, or the summand of it that is at hand."""
        adds_to = self._sites[position].adds_to
        for index, bridge in enumerate(self.built):
            assert isinstance(bridge, Bridge)
            if not bridge.enabled:
                continue
            if bridge.input == position:
                seen = value if adds_to is None else value + self._stream[adds_to]
                self._read[index] = self._joined(index, seen) if position == "FFN_out" else seen
            if bridge.output == position:
                value = value + bridge.function(self._read.pop(index)).to(value.dtype)
        if position in self._summands:
            self._stream[position] = value if adds_to is None else value + self._stream[adds_to]
        return value

    def _joined(self, index: int, piece: Tensor) -> Tensor:
        """Put the feed-forward's result together where diffusers computes it in pieces (``set_chunk_feed_forward``)."""
        if index not in self._read:
            return piece
        [block] = self._block
        return torch.cat([self._read[index], piece], dim=int(block._chunk_dim))  # pyright: ignore[reportArgumentType]
