"""The precision of a run's arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from inlay.base.contract import Base

Precision = Literal["fp32", "bf16", "fp16"]
Quantized = Literal["int8"]

LOWERED: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The type that each precision computes in and keeps frozen weights in; None for no change."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which a run encodes, predicts and samples on a device.

    Torch's own and not Accelerate's, which fixes one precision for all runs of a process.
    """
    dtype = LOWERED[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def keep_frozen(base: Base, precision: Precision, quantize: Quantized | None) -> None:
    """Let a base hold its frozen weights as a run does, once methods have asked for what they train.

    Args:
        base: with methods attached.
        precision: of the run.
        quantize: the integers that the denoiser's weights become; None for none.
    """
    base.lighten(quantize is not None)
    dtype = LOWERED[precision]
    if dtype is not None:
        base.cast_frozen(dtype)


SHORT_ATTENTION = 144
"""Latent positions up to which plain matrix products attend faster than the CPU's fused kernel in bf16, whose backward
pass is slow on short sequences: 2.3 times as long at 64 positions, 0.6 times at 256 (`benchmarks/attention.py`)."""


def attention_kernel(device: torch.device, precision: Precision, positions: int) -> AbstractContextManager[Any]:
    """Return the context in which training is fastest, forward, backward and recomputation alike.

    Args:
        device: where the denoiser is.
        precision: of the run.
        positions: height x width of the latents.
    """
    if device.type == "cpu" and precision == "bf16" and positions <= SHORT_ATTENTION:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
