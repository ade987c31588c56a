"""The machine that a plan is for: the one that it is made on."""

from __future__ import annotations

import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """The device on which a run would train here."""

    device: str
    """`cuda`, `mps` or `cpu`."""
    name: str
    memory_bytes: int
    available_bytes: int
    fast_bf16: bool
    """Whether bf16 arithmetic is faster than float32."""
    process_bytes: int
    """Resident size of this process with its libraries, which on a CPU a run needs too."""


def this_machine() -> Machine:
    """Return the device that training would choose."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    resident = psutil.Process().memory_info().rss
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(0)
        capable = torch.cuda.get_device_capability(0) >= (8, 0)
        return Machine("cuda", torch.cuda.get_device_name(0), total, free, capable, resident)
    if torch.backends.mps.is_available():
        return Machine("mps", "Apple Metal", memory.total, memory.available, False, resident)
    # Available memory counts what this process holds as taken; a run would hold it instead.
    available = min(memory.total, memory.available + resident)
    features = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch that inlay runs with
    fast = any(present and "bf16" in name for name, present in features.items())
    return Machine("cpu", str(features.get("cpu_name") or platform.machine()), memory.total, available, fast, resident)
