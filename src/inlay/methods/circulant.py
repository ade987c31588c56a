"""C3A's layer (arXiv 2407.19342) with the gradient of its inputs.

PEFT 0.21 computes the layer and its gradient by kernels right, and passes a wrong one on to the layers before it: of
each block of inputs it takes the reversed order. So its forward pass is computed here, and its gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.c3a.layer import C3ALinear
from torch import Tensor
from torch.fft import irfft, rfft


class Circulant(C3ALinear):
    """Adds C x / inputs to what the layer below gives, C of circulant blocks."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the layer gives for inputs [..., inputs]: [..., outputs]."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        result = self.base_layer(x, *args, **kwargs)
        for kernel in self.c3a_kernel.values():
            update = CircularCorrelation.apply(x.float(), kernel.float()) / x.shape[-1]
            result = result + update.to(result.dtype)
        return result.to(x.dtype)


class CircularCorrelation(torch.autograd.Function):
    """Sums over n of the circular correlations y_m[k] = sum over j of x_n[k + j] w_mn[j], with indices modulo b.

    By Fourier transforms: Y = X conj(W). Of the product only x [..., n b] and w [m, n, b] are kept for the gradients,
    which are of the same kind: G W for x, X conj(G) for w.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        blocks = rfft(x.unflatten(-1, w.shape[1:]))
        return irfft(torch.einsum("...nf,mnf->...mf", blocks, rfft(w).conj()), n=w.shape[2]).flatten(-2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        outward = rfft(grads[0].unflatten(-1, (w.shape[0], w.shape[2])))
        inward = irfft(torch.einsum("...mf,mnf->...nf", outward, rfft(w)), n=w.shape[2]).flatten(-2)
        blocks = rfft(x.unflatten(-1, w.shape[1:]))
        return inward, irfft(torch.einsum("...nf,...mf->mnf", blocks, outward.conj()), n=w.shape[2])
