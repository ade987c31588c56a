"""PEFT's VB-LoRA layer without its check for infinite logits, for which every pass would wait for the device."""

from __future__ import annotations

from typing import Any

from peft.tuners.vblora.layer import Linear
from torch import Tensor


class Mixed(Linear):
    """W + B A, pieced together from the bank (arXiv 2405.15179, equations 4 and 5)."""

    def _get_lora_matrices(self, adapter: Any, cast_to_fp32: bool = False) -> tuple[Tensor, Tensor]:
        bank, topk = self.vblora_vector_bank[adapter], self.topk[adapter]
        a = self._get_low_rank_matrix(self.vblora_logits_A[adapter], bank, topk)  # [r, inputs / L, L]
        b = self._get_low_rank_matrix(self.vblora_logits_B[adapter], bank, topk)  # [outputs / L, r, L]
        return a.flatten(1), b.transpose(1, 2).flatten(0, 1)
