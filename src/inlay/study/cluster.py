"""Cells on a Ray cluster, as Ray Core tasks: the same worker function, the same run directories.

The study directory must lie where every node sees it, and inlay be installed on each. Ray keeps no queue that outlives
it: which cells have results is told by their run directories alone, so a cluster may shrink, grow and go.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from inlay.errors import ConfigError
from inlay.study.worker import Task, run_cell

if TYPE_CHECKING:
    from inlay.run.kept_base import KeptBase

CARRIED = ("HF_", "INLAY_", "TOKENIZERS_", "TRANSFORMERS_", "DIFFUSERS_")
"""Environment variables of the driver that hold on every node, by their beginnings."""
STOP_SECONDS = 60.0
"""How long cells may take to save where they are before they are ended."""

_base: KeptBase | None = None
"""Of this worker process; Ray gives it one task after another."""


def work(task: dict[str, Any], environment: dict[str, str], place: str) -> dict[str, Any]:
    """Run a cell in a worker process of Ray; see :func:`inlay.study.worker.run_cell`."""
    global _base
    os.environ.update(environment)
    os.chdir(place)  # relative paths of run files mean what they mean to the driver
    if _base is None:
        from inlay.run.kept_base import KeptBase

        _base = KeptBase()
    return run_cell(Task(**task), _base, lambda event: None)


class Cluster:
    """A Ray cluster as an :class:`inlay.study.pool.Executor`."""

    def __init__(self, address: str, cpus: int, gpus: float | None):
        """Connect.

        Args:
            address: `host:port` of its head, or `auto` for the one that runs on this machine.
            cpus: cores a cell.
            gpus: GPUs a cell; None for one where the cluster has any.

        Raises:
            ConfigError: Ray is not installed, nothing answers there, or no node is large enough for a cell.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray.exceptions  # pyright: ignore[reportMissingImports] - an extra
        except ModuleNotFoundError:
            raise ConfigError("--cluster needs Ray: pip install 'inlay[cluster]'") from None
        self._ray = ray
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"--cluster {address}: no Ray cluster answers there ({error}); start one with `ray start --head`, or "
                "leave out --cluster"
            ) from None
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
        self._cpus, self._gpus = cpus, gpus
        if self._fitting() == 0:
            ray.shutdown()
            raise ConfigError(
                f"--cluster {address}: no node has the {cpus} cores and {gpus:g} GPUs that execution asks for each cell"
            )
        # Not tried again by Ray: the driver counts attempts, and writes each of them down.
        self._work = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, max_calls=0)(work)
        self._environment = {key: value for key, value in os.environ.items() if key.startswith(CARRIED)}
        self._running: dict[Any, str] = {}
        self._stopped: float | None = None

    def free(self) -> int:
        return max(1, self._fitting()) - len(self._running)

    def submit(self, task: Task) -> None:
        reference = self._work.remote(task.to_json(), self._environment, os.getcwd())
        self._running[reference] = task.cell

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if not ready and self._stopped is not None and time.monotonic() - self._stopped > STOP_SECONDS:
            for reference in self._running:
                self._ray.cancel(reference, force=True)
        return [self._end(reference) for reference in ready]

    def stop(self) -> None:
        self._stopped = time.monotonic()
        for reference in self._running:
            self._ray.cancel(reference)  # a KeyboardInterrupt, which the training loop takes as Ctrl-C

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()
        sys.stdout.flush()

    def _end(self, reference: Any) -> dict[str, Any]:
        cell = self._running.pop(reference)
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            return {"kind": "stopped", "cell": cell}
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().partition("\n")[0]
            return {"kind": "lost", "cell": cell, "reason": f"{type(error).__name__}: {first}"}

    def _fitting(self) -> int:
        """Return how many cells the living nodes can run side by side."""
        total = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                resources = node["Resources"]
                fits = [int(resources.get("CPU", 0) / self._cpus)]
                if self._gpus:
                    fits.append(int(resources.get("GPU", 0) / self._gpus))
                total += min(fits)
        return total
