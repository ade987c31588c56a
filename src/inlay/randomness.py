"""Random streams derived from (seed, purpose, indices).

No generator carries state from one step to the next, so a resumed run draws what the uninterrupted run would
have drawn, and two runs that share a seed see the same noise whatever else differs between them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *indices: int) -> int:
    """Return a 63-bit integer that depends on every argument and on nothing else.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for, e.g. ``"noise"``; different purposes are independent.
        indices: step, epoch, image index and so on.
    """
    text = ":".join([str(int(seed)), purpose, *(str(int(index)) for index in indices)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def stream(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """Return a CPU generator for (seed, purpose, indices). Draw on the CPU, then move: devices then agree."""
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, *indices))
