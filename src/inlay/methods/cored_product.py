"""LoHa of a convolution with cores (FedPara, arXiv 2108.06098, proposition 3), with the gradient of its factors.

PEFT 0.21 computes the update right, and the gradients of `hada_w1_a` and `hada_w2_a` wrong: of each it uses the
other product's core and `_b`. LyCORIS, where its code is from, has mended it since. So the update is computed here.
"""

from __future__ import annotations

import torch
from peft.tuners.loha.layer import Conv2d
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class CoredConv2d(Conv2d):
    """Adds a convolution by (t1, w1_a, w1_b) o (t2, w2_a, w2_b) to what the convolution below gives."""

    def get_delta_weight(self, adapter_name: str, *, apply_rank_dropout: bool = False) -> Tensor:
        """Return the update [out, in, kh, kw], some of its outputs dropped where that is asked for.

        Factors are [r, out] and [r, in], cores [r, r, kh, kw]. The gradient computes the two products again instead of
        keeping them, each of which has the size of the weight.
        """
        names = ("hada_t1", "hada_w1_a", "hada_w1_b", "hada_t2", "hada_w2_a", "hada_w2_b")
        factors = [getattr(self, name)[adapter_name] for name in names]
        weight = checkpoint(_product, *factors, use_reentrant=False, preserve_rng_state=False)
        weight = weight * self.scaling[adapter_name]
        if apply_rank_dropout:
            kept = torch.rand(weight.shape[0], device=weight.device) > self.rank_dropout[adapter_name]
            weight = weight * (kept / kept.float().mean())[:, None, None, None].to(weight.dtype)
        return weight


def _product(t1: Tensor, w1_a: Tensor, w1_b: Tensor, t2: Tensor, w2_a: Tensor, w2_b: Tensor) -> Tensor:
    # Inputs before outputs: what is large then comes out of a plain product, in its final order.
    inner, other = (torch.einsum("ijkl,jq->iqkl", core, b) for core, b in ((t1, w1_b), (t2, w2_b)))
    return ((w1_a.T @ inner.flatten(1)) * (w2_a.T @ other.flatten(1))).unflatten(1, inner.shape[1:])
