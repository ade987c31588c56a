"""What a training step costs in arithmetic and memory, counted by taking the step on the meta device.

The meta device knows shapes and dtypes and computes nothing, so the counts are those of the real modules with the real
methods attached: frozen layers have no weight gradient, layers before the first trained one no backward pass at all.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import flop_registry

from inlay.base.contract import Base
from inlay.objective.loss import loss_per_sample

# What torch.autocast computes in the lower precision, of what these models are made of.
LOWERED = {F.linear, F.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.baddbmm}
# What torch.autocast computes in float32 on an accelerator; on a CPU it leaves the input's precision.
RAISED = {F.group_norm, F.layer_norm, F.softmax, torch.softmax, Tensor.softmax}
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class StepCost:
    """One micro-batch forward and backward."""

    forward_flops: int
    """Multiplications and additions each counted, in matrix products, convolutions and attention."""
    backward_flops: int
    """The same; what gradient checkpointing computes again is in it."""
    kept_bytes: int
    """Tensors that live from the forward pass to the backward pass, weights apart."""
    activations_bytes: int
    """Largest size at one moment of all tensors but weights and their gradients."""
    peak_bytes: int
    """Largest size at one moment of all tensors but weights: activations are freed while gradients arrive."""


@dataclass(frozen=True)
class ForwardCost:
    """One call without gradients."""

    flops: int
    peak_bytes: int
    """Largest size at one moment of all tensors but weights."""
    result: Any
    """What the call returned, on the meta device."""


@dataclass(frozen=True)
class Arithmetic:
    """The numbers that training computes with."""

    lowered: torch.dtype | None
    """The precision of mixed-precision arithmetic, None for float32 throughout."""
    accelerator: bool
    """Mixed precision as on an accelerator rather than as on a CPU."""


def step_cost(
    base: Base,
    owned: Iterable[nn.Parameter],
    latents: tuple[int, int, int, int],
    arithmetic: Arithmetic,
    checkpointing: bool,
) -> StepCost:
    """Take one step and count.

    Args:
        base: on the meta device, methods attached, frozen weights in their precision.
        owned: the trained parameters; when some lie in a text encoder, prompts are read with the step.
        latents: shape [B, C, h, w] of a micro-batch.
        arithmetic: of the run.
        checkpointing: with gradient checkpointing in the denoiser.
    """
    owned = list(owned)
    readers = [base.components[part] for part in base.architecture.readers]
    in_text = not {id(p) for reader in readers for p in reader.parameters()}.isdisjoint(id(p) for p in owned)
    with torch.device("meta"):
        noisy = torch.empty(latents)
        timesteps = torch.zeros(latents[0], dtype=torch.int64)
        token_ids = torch.zeros((latents[0], base.architecture.prompt_ids), dtype=torch.int64)
        states = torch.empty((latents[0], *(base.architecture.text_shape or ()))) if readers else token_ids
    emulation = _Emulation(arithmetic)
    count = _Count([noisy, timesteps, token_ids, states, *_weights(base)])
    trained = [base.unet, *readers] if in_text else [base.unet]
    hooks = [parameter.register_post_accumulate_grad_hook(count.take_gradient) for parameter in owned]
    if checkpointing:
        # A function mode is off inside backward(), so what is computed again there must switch it on itself.
        base.unet.enable_gradient_checkpointing(
            lambda module, *inputs: checkpoint(
                module, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), emulation)
            )
        )
    try:
        with count, emulation:
            for module in trained:
                module.train()
            if in_text:
                states = base.encode_tokens(token_ids)
            output = base.predict(noisy, timesteps, states)
            loss = loss_per_sample(output, torch.zeros_like(noisy), noisy.new_ones(latents[0])).sum()
            del output
            emulation.end_of_forward()
            kept, forward = count.activations, count.flops
            loss.backward()
        return StepCost(forward, count.flops - forward, kept, count.most_activations, count.most)
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in owned:
            parameter.grad = None
        for module in trained:
            module.eval()
        if checkpointing:
            base.unet.disable_gradient_checkpointing()


def forward_cost(base: Base, arithmetic: Arithmetic, call: Callable[[], Any]) -> ForwardCost:
    """Make a call that computes with the parts of ``base``, without gradients, and count.

    Args:
        base: on the meta device.
        arithmetic: of the run.
        call: makes its inputs on the meta device, inside ``torch.device("meta")``.
    """
    count = _Count(_weights(base))
    with torch.no_grad(), torch.device("meta"), count, _Emulation(arithmetic):
        result = call()
    return ForwardCost(count.flops, count.most, result)


def _weights(base: Base) -> Iterable[Tensor]:
    for module in base.components.values():
        yield from module.parameters()
        yield from module.buffers()


class _Emulation(TorchFunctionMode):
    """Attention as the fused kernels of CPUs and accelerators compute it, and autocast, for the meta device.

    Left to itself the meta device keeps every attention matrix for the backward pass, which no fused kernel does, and
    has no autocast.
    """

    def __init__(self, arithmetic: Arithmetic):
        super().__init__()
        self._lowered, self._accelerator = arithmetic.lowered, arithmetic.accelerator
        # With the tensor itself, so that it lives on and no other one comes to its id.
        self._weights: dict[int, tuple[Tensor, Tensor]] | None = {}

    def end_of_forward(self) -> None:
        """Forget the cast weights, as autocast does when its context ends."""
        self._weights = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            args, kwargs = self._cast(args, kwargs, self._lowered)
            return _fused_attention(*args, **kwargs)
        if func in LOWERED:
            args, kwargs = self._cast(args, kwargs, self._lowered)
        elif func in RAISED and self._accelerator and self._lowered is not None:
            args, kwargs = self._cast(args, kwargs, torch.float32)
        return func(*args, **kwargs)

    def _cast(self, args: Any, kwargs: Any, dtype: torch.dtype | None) -> tuple[Any, Any]:
        if dtype is None:
            return args, kwargs
        return tree_map_only(Tensor, lambda tensor: self._to(tensor, dtype), (args, kwargs))

    def _to(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype == dtype:
            return tensor
        # As autocast does, cast a trained weight once a forward pass however often it is used.
        if self._weights is None or not (tensor.is_leaf and tensor.requires_grad):
            return tensor.to(dtype)
        if id(tensor) not in self._weights:
            self._weights[id(tensor)] = tensor, tensor.to(dtype)
        return self._weights[id(tensor)][1]


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    return ATTENTION(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Two matrix products: queries with keys, weights with values. Shapes [B, heads, tokens, width]."""
    return 2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _attention_backward_flops(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    """Two gradients of each product. What fused kernels compute again to save memory is not counted."""
    return 2 * _attention_flops(query, key, value)


FLOPS = {**flop_registry, ATTENTION: _attention_flops, ATTENTION_BACKWARD: _attention_backward_flops}
"""FLOPs of an operation from its arguments, by operation: torch's table, and attention."""


_MADE: dict[Any, Any] = {}
"""What an operation makes of arguments of given shapes, as descriptions of tensors: see :func:`_result`."""
_SHARING = {torch.ops.aten._unsafe_view.default, torch.ops.aten.lift_fresh.default}
"""Operations whose result lies in an argument's memory, though their schemas do not say so."""


@dataclass(frozen=True)
class _Made:
    """A new tensor on the meta device."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self) -> Tensor:
        return torch.ops.aten.empty_strided.default(self.size, self.stride, dtype=self.dtype, device="meta")


def _result(func: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operation makes of tensors on the meta device.

    Torch finds shapes out in Python, which takes longer than all else here, and a network repeats its layers. So what
    was found once is remembered for arguments of the same shapes.
    """
    schema = func._schema
    if func in _SHARING or schema.is_mutable or any(one.alias_info is not None for one in schema.returns):
        return func(*args, **kwargs)
    try:
        key = func, _described(args), _described(tuple(kwargs.items()))
        made = _MADE.get(key)
    except TypeError:  # an argument that cannot be a key
        return func(*args, **kwargs)
    if made is None:
        result = func(*args, **kwargs)
        parts = result if isinstance(result, tuple | list) else [result]
        if all(one is None or (isinstance(one, Tensor) and one.is_meta) for one in parts):
            found = [one if one is None else _Made(tuple(one.shape), one.stride(), one.dtype) for one in parts]
            _MADE[key] = type(result)(found) if isinstance(result, tuple | list) else found[0]
        return result
    if isinstance(made, tuple | list):
        return type(made)(one if one is None else one.make() for one in made)
    return made.make()


def _described(value: Any) -> Any:
    """Return what of an argument decides the result's shape, as a key.

    Raises:
        TypeError: it cannot be one.
    """
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise TypeError("its values may decide")
        return value.shape, value.stride(), value.dtype
    if isinstance(value, tuple | list):
        return tuple(map(_described, value))
    hash(value)
    return type(value), value


class _Count(TorchDispatchMode):
    """FLOPs of all operations, and the size of all tensors that they have made and that still live.

    Torch's own FLOP counter keeps activations alive for longer than training does.
    """

    def __init__(self, apart: Iterable[Tensor]):
        super().__init__()
        self.flops = 0
        self.activations = self.gradients = self.most_activations = self.most = 0
        # Held here, so that no address among them is used again for something that counts.
        self._apart = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in apart)}
        self._sizes: dict[int, tuple[int, bool]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = _result(func, args, kwargs)
        flops = FLOPS.get(func._overloadpacket)
        if flops is not None:
            self.flops += flops(*args, **kwargs, out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self._apart or place in self._sizes:
            return
        self._sizes[place] = (storage.nbytes(), False)
        self._add(storage.nbytes(), False)
        weakref.finalize(storage, self._forget, place).atexit = False

    def _forget(self, place: int) -> None:
        size, gradient = self._sizes.pop(place)
        self._add(-size, gradient)

    def _add(self, size: int, gradient: bool) -> None:
        if gradient:
            self.gradients += size
        else:
            self.activations += size
        self.most_activations = max(self.most_activations, self.activations)
        self.most = max(self.most, self.activations + self.gradients)

    def take_gradient(self, parameter: Tensor) -> None:
        """Take a parameter's gradient out of the activations; a hook for when it has arrived."""
        assert parameter.grad is not None
        self._see(parameter.grad)
        place = parameter.grad.untyped_storage()._cdata
        size, gradient = self._sizes[place]
        if not gradient:
            self._sizes[place] = (size, True)
            self.activations -= size
            self.gradients += size
