"""The precision of a run's arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]

LOWERED: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The type that each precision computes in and keeps frozen weights in; None for no change."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which a run encodes, predicts and samples on a device.

    Torch's own and not Accelerate's, which fixes one precision for all runs of a process.
    """
    dtype = LOWERED[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
