"""Taps on a base's layers: functions on what goes into them or comes out, and the attachment that keeps them there."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inlay.methods.contract import Attachment, Method

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


class Tap(ABC):
    """One change to how a base computes, which holds while its method is enabled."""

    @abstractmethod
    def settle(self, owner: Taps) -> None:
        """Take its place, or a new place where another method has wrapped the layer since."""

    @abstractmethod
    def remove(self) -> None:
        """Leave the base as it was."""


class LayerTap(Tap):
    """A tap on the layer that a module calls by a name, and so on the outermost one where that layer is wrapped.

    PEFT replaces a layer by one that holds it and adds to it. A change must then reach both: an input that is changed
    for the inner layer only would be another one for what PEFT adds.
    """

    def __init__(self, parent: nn.Module, child: str):
        """Address ``child``, a direct child of ``parent``."""
        self._parent, self._child = parent, child
        self._layer: nn.Module | None = None
        self._handle: RemovableHandle | None = None
        self._owner: Taps | None = None

    def settle(self, owner: Taps) -> None:
        import torch

        if self._parent._modules[self._child] is not self._layer:
            # Hooks cannot be moved inside a compiled graph.
            move: Any = torch.compiler.disable(self._move)
            move(owner)

    def _move(self, owner: Taps) -> None:
        self.remove()
        self._owner = owner
        self._layer = self._parent._modules[self._child]
        assert self._layer is not None
        self._handle = self._hook_into(self._layer)

    @abstractmethod
    def _hook_into(self, layer: nn.Module) -> RemovableHandle: ...

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._layer = self._handle = None


class InputTap(LayerTap):
    """Changes a layer's first input: ``change(input) -> input``."""

    def __init__(self, parent: nn.Module, child: str, change: Callable[[Tensor], Tensor]):
        """Address ``child``, a direct child of ``parent``."""
        super().__init__(parent, child)
        self._change = change

    def _hook_into(self, layer: nn.Module) -> RemovableHandle:
        return layer.register_forward_pre_hook(self._before)

    def _before(self, layer: nn.Module, inputs: Any) -> Any:
        assert self._owner is not None
        return (self._change(inputs[0]), *inputs[1:]) if self._owner.enabled else None


class OutputTap(LayerTap):
    """Changes a layer's output: ``change(input, output) -> output``."""

    def __init__(self, parent: nn.Module, child: str, change: Callable[[Tensor, Tensor], Tensor]):
        """Address ``child``, a direct child of ``parent``."""
        super().__init__(parent, child)
        self._change = change

    def _hook_into(self, layer: nn.Module) -> RemovableHandle:
        return layer.register_forward_hook(self._after)

    def _after(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        assert self._owner is not None
        return self._change(inputs[0], output) if self._owner.enabled else None


class Taps:
    """The taps of one method in one part of a base, and the module that holds its weights.

    That module becomes a child of the part, so that the weights go where the part goes.
    """

    def __init__(self, root: nn.Module, weights: nn.Module, taps: Sequence[Tap]):
        """Put ``weights`` and ``taps`` into ``root``; all taps there then stand in the order of attachment."""
        self.enabled = True
        self._root, self._taps = root, list(taps)
        self._name = next(name for n in itertools.count() if not hasattr(root, name := f"inlay_taps_{n}"))
        root.add_module(self._name, weights.train(root.training))
        self._handle = root.register_forward_pre_hook(self._settle)
        for hook in root._forward_pre_hooks.values():
            if isinstance(getattr(hook, "__self__", None), Taps):
                hook(root, ())

    def _settle(self, root: nn.Module, inputs: Any) -> None:
        """Follow the layers; runs before every forward pass."""
        for tap in self._taps:
            tap.settle(self)

    def remove(self) -> None:
        """Take everything out again."""
        self._handle.remove()
        for tap in self._taps:
            tap.remove()
        self._taps = []
        delattr(self._root, self._name)


class TapAttachment(Attachment):
    """An attachment that acts on the denoiser through taps."""

    def __init__(self, method: Method, denoiser: nn.Module, pieces: Mapping[str, nn.Module], taps: Sequence[Tap]):
        """Put taps into ``denoiser``.

        Args:
            method: the description.
            denoiser: gets the weights as a child.
            pieces: what holds the weights, by its name in the saved file; becomes float32 and lies where the denoiser
                lies.
            taps: act by the pieces.
        """
        import torch
        from torch import nn

        self.method = method
        self._denoiser = denoiser
        self._pieces = dict(pieces)
        weights = nn.ModuleList(pieces.values())
        weights.to(next(denoiser.parameters()).device, torch.float32).requires_grad_(True)
        self._taps = Taps(denoiser, weights, taps)

    @property
    def components(self) -> frozenset[str]:
        return frozenset({"unet"})

    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"unet.{piece}.{name}": parameter
            for piece, module in self._pieces.items()
            for name, parameter in module.named_parameters()
        }

    @contextmanager
    def disabled(self) -> Iterator[None]:
        before, self._taps.enabled = self._taps.enabled, False
        try:
            yield
        finally:
            self._taps.enabled = before

    def detach(self) -> None:
        self._taps.remove()
        self._pieces = {}
