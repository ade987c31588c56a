"""Frozen layers that let a training step keep less: nothing of a convolution's input, and weights of 8 bits.

Autograd keeps the input of every convolution, which only the gradient of the weight needs; of a frozen one nobody asks
for that. (Of linear layers it knows.) In Stable Diffusion 1's denoiser that is an eighth of all that is kept.

As 8-bit integers weights take half the memory of bfloat16: w of an output channel is kept as q = round(w / s) with
s = max |w| / 127, the symmetric vector-wise quantisation of arXiv 2208.07339 (section 2), for weights only. Arithmetic
is with q * s, made for each forward and each backward pass and let go at once: autograd would keep it from one to the
other, and nothing would be saved.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 127
SMALL = 16
"""Layers with fewer input or output channels do not become integers: the first and last ones, which read and write
latents, hold next to nothing, and nothing evens their errors out."""

WORTH_IT = 2**18
"""Numbers in a convolution's input from which on keeping them costs more than the half millisecond of Python that a
convolution of our own takes; the embedded base's are smaller, Stable Diffusion's larger."""


def lighten(module: nn.Module, integers: bool = False) -> None:
    """Let frozen convolutions inside a module, in place, keep nothing of their inputs.

    Layers stay the objects that they were, so wrappers around them stay right. What they compute stays the same to the
    last bit, but for the rounding of weights that become integers.

    Args:
        module: a part of a base, once methods have asked for what they train.
        integers: also round the frozen weights of convolutions and linear layers to 8 bits. ``layer.weight`` gives the
            rounded weight then, computed anew each time. Norms, embeddings, biases and what trains stay.
    """
    for layer in module.modules():
        if integers and becomes_integers(layer):
            rounded, scale = to_int8(layer.weight.detach())
            del layer._parameters["weight"]
            kind: Any = Int8Conv2d if isinstance(layer, nn.Conv2d) else Int8Linear
            layer.__class__ = kind
            layer.register_buffer("weight_int8", rounded)
            layer.register_buffer("weight_scale", scale)
        elif _is_frozen_convolution(layer):
            layer.__class__ = FrozenConv2d
    if integers:
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()  # the last of them would keep all of the file in memory


def becomes_integers(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Return whether a layer is one whose weight can become integers."""
    if not (_is_frozen_linear(layer) or _is_frozen_convolution(layer)):
        return False
    return min(layer.weight.shape[:2]) >= SMALL


def _is_frozen_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return type(layer) is nn.Linear and not layer.weight.requires_grad


def _is_frozen_convolution(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    if type(layer) is not nn.Conv2d or layer.weight.requires_grad:
        return False
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [out, ...] => int8 of the same shape, and the scale float32 [out, 1, ...] of its channels."""
    weight = weight.float()
    scale = weight.flatten(1).abs().amax(1) / LARGEST
    scale = scale.where(scale > 0, 1.0).view(-1, *[1] * (weight.dim() - 1))
    return (weight / scale).round().to(torch.int8), scale


class FrozenConv2d(nn.Conv2d):
    """A convolution of which only input and bias may ask for a gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """Inputs [B, in, h, w] => [B, out, h', w']."""
        if input.numel() < WORTH_IT:
            return super().forward(input)
        return _Conv2d.apply(input, self.bias, _how(self), self.weight)


class _Int8(nn.Module):
    weight_int8: Tensor
    weight_scale: Tensor

    @property
    def weight(self) -> Tensor:
        """The weight that the layer computes with, float32."""
        return self.weight_int8 * self.weight_scale


class Int8Conv2d(_Int8, nn.Conv2d):
    """A convolution with weights of 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        """Inputs [B, in, h, w] => [B, out, h', w']."""
        return _Conv2d.apply(input, self.bias, _how(self), self.weight_int8, self.weight_scale)


class Int8Linear(_Int8, nn.Linear):
    """A linear layer with weights of 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        """Inputs [..., in] => [..., out]."""
        # As a matrix: of more axes the product is a view, into which no wrapper could add its own.
        rows = _Linear.apply(input.flatten(0, -2), self.bias, self.weight_int8, self.weight_scale)
        return rows.view(*input.shape[:-1], -1)


def _how(layer: nn.Conv2d) -> tuple[Any, ...]:
    return layer.stride, layer.padding, layer.dilation, layer.groups


def _weight(kept: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """Return a weight from what is kept of it: itself, or integers and their scale."""
    weight, *scale = kept
    return (weight * scale[0] if scale else weight).to(dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, bias: Tensor | None, *kept: Tensor) -> Tensor:
        ctx.save_for_backward(*kept)
        return F.linear(input, _weight(kept, input.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (of_input, of_bias, *_), kept = grads, ctx.needs_input_grad, ctx.saved_tensors
        return (
            grad @ _weight(kept, grad.dtype) if of_input else None,
            grad.sum(0) if of_bias else None,
            *[None for _ in kept],
        )


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, bias: Tensor | None, how: tuple[Any, ...], *kept: Tensor) -> Tensor:
        ctx.save_for_backward(*kept)
        ctx.shape, ctx.how = input.shape, how
        return F.conv2d(input, _weight(kept, input.dtype), bias, *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (of_input, of_bias, *_), kept = grads, ctx.needs_input_grad, ctx.saved_tensors
        weight, (stride, padding, dilation, groups) = _weight(kept, grad.dtype), ctx.how
        # Of the input only the shape is asked for, so any one will do: this takes up one number.
        shape = grad.new_empty(1).expand(ctx.shape)
        biases = [len(weight)] if of_bias else None
        found = torch.ops.aten.convolution_backward(
            grad, shape, weight, biases, stride, padding, dilation, False, [0], groups, (of_input, False, of_bias)
        )
        return found[0], found[2], None, *[None for _ in kept]
