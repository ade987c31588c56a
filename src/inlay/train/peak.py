"""The largest memory that a run has used."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self/status")


def peak_bytes(device: torch.device) -> int:
    """Return the largest memory in use since :func:`forget_peak`: the device's, or on a CPU the resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux' own count where there is one: getrusage also counts what the parent held when it started this process.
    for line in _PROCESS.read_text().splitlines() if _PROCESS.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def forget_peak() -> None:
    """Begin to measure memory anew, where the system allows it: for processes that do one run after another."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what the last run freed goes back to the system
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets the peak of the resident size
