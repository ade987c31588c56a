"""The machine that a plan is for: the one that it is made on, or a GPU elsewhere."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from inlay.errors import ConfigError
from inlay.run.human import human_bytes


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
    here: bool = True
    """Whether it is the machine that this process runs on."""


CONTEXT_BYTES = 2**29
"""What CUDA and its libraries take of a GPU before any tensor lies there; about, and not measured here."""


def gpu(memory_bytes: int) -> Machine:
    """Return a GPU with so much memory, used for nothing else.

    Raises:
        ConfigError: that is less than CUDA itself takes.
    """
    if memory_bytes <= CONTEXT_BYTES:
        raise ConfigError(
            f"a GPU with {human_bytes(memory_bytes)}: CUDA alone takes about {human_bytes(CONTEXT_BYTES)}; give more"
        )
    name = f"a GPU with {human_bytes(memory_bytes)}"
    return Machine("cuda", name, memory_bytes, memory_bytes - CONTEXT_BYTES, True, 0, here=False)


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
