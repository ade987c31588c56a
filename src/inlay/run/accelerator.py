"""The processes and the device of a run."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from inlay.run.config import JobConfig

PATIENCE = timedelta(hours=6)
"""How long a process waits for another. Backends give up after 10 or 30 minutes, less than encoding a large data set or
measuring on one process can take."""


def make_accelerator(config: JobConfig, directory: Path) -> Accelerator:
    """Return what knows a run's processes and device, and logs to its trackers."""
    return Accelerator(
        # Said outright, or several processes on a machine without a GPU would each take themselves for the only one.
        cpu=not torch.accelerator.is_available(),
        # Precision is inlay's own doing, see inlay.train.precision; another one from the environment must not act.
        mixed_precision="no",
        log_with=trackers(config) or None,  # pyright: ignore[reportArgumentType] - a list is invariant
        project_dir=str(directory),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def trackers(config: JobConfig) -> list[str]:
    """Return the names of the trackers that a run logs to: those it states, else TensorBoard where it is installed."""
    if config.train.trackers is not None:
        return list(config.train.trackers)
    return ["tensorboard"] if find_spec("tensorboard") else []
