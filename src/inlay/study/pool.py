"""Cells on this machine: worker processes, each with its own base, replaced when they die."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from inlay.files import writing
from inlay.study.worker import Task

LOGS = "logs"


class Executor(Protocol):
    """Runs cells somewhere. Events are those of :func:`inlay.study.worker.run_cell`, and `lost` when a worker died."""

    def free(self) -> int:
        """Return how many more cells may be submitted now."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a cell."""
        ...

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        """Return what has happened, waiting for something to at most so long."""
        ...

    def stop(self) -> None:
        """Ask every running cell to stop after its step, and to save."""
        ...

    def close(self) -> None:
        """End all workers at once; what is under way goes on from its checkpoint another time."""
        ...


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    task: Task | None = None
    unread: bytes = field(default=b"", repr=False)

    @property
    def output(self) -> Any:
        return self.process.stdout


class LocalPool:
    """Worker processes on this machine."""

    def __init__(self, directory: Path, workers: int, cpus: int, gpus: float | None):
        """Prepare; a worker starts when it is first needed.

        Args:
            directory: the study directory, where they log.
            workers: how many.
            cpus: threads of each.
            gpus: GPUs of each; None for one where there are any.
        """
        self._directory = directory
        self._count, self._cpus = workers, cpus
        self._devices = _devices(workers, gpus)
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def free(self) -> int:
        return self._count - sum(worker.task is not None for worker in self._workers)

    def submit(self, task: Task) -> None:
        idle = next((worker for worker in self._workers if worker.task is None), None)
        worker = idle or self._start()
        worker.task = task
        assert worker.process.stdin is not None
        with suppress(OSError):  # it has just died, which `wait` will notice
            worker.process.stdin.write(json.dumps(task.to_json()).encode() + b"\n")
            worker.process.stdin.flush()

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        events = []
        for key, _ in self._selector.select(seconds):
            worker: _Worker = key.data
            chunk = os.read(worker.output.fileno(), 65536)
            if not chunk:
                events += self._bury(worker)
                continue
            *lines, worker.unread = (worker.unread + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["kind"] != "step":
                    worker.task = None
                events.append(event)
        return events

    def stop(self) -> None:
        for worker in self._workers:
            if worker.task is not None:
                worker.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        for worker in self._workers:
            self._selector.unregister(worker.output)
            if worker.task is not None:
                worker.process.kill()
            for pipe in (worker.process.stdin, worker.process.stdout):
                assert pipe is not None
                with suppress(OSError):
                    pipe.close()
        deadline = time.monotonic() + 10
        for worker in self._workers:
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers = []

    def _start(self) -> _Worker:
        number = next(n for n in range(self._count) if all(worker.number != n for worker in self._workers))
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._cpus), "TOKENIZERS_PARALLELISM": "false"}
        if self._devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[number]
        log = self._directory / LOGS / f"worker-{number}.log"
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "inlay.study.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is the driver's; it tells its workers
                )
        worker = _Worker(number, process)
        self._workers.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _bury(self, worker: _Worker) -> list[dict[str, Any]]:
        """Take away a worker that has died; its cell is lost."""
        self._selector.unregister(worker.output)
        code = worker.process.wait()
        for pipe in (worker.process.stdin, worker.process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        self._workers.remove(worker)
        if worker.task is None:
            return []
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        log = self._directory / LOGS / f"worker-{worker.number}.log"
        reason = f"the worker process ended ({how}{memory}); see {log}"
        return [{"kind": "lost", "cell": worker.task.cell, "reason": reason}]


def _devices(workers: int, gpus: float | None) -> list[str] | None:
    """Return `CUDA_VISIBLE_DEVICES` of each worker, None to leave it as it is."""
    if gpus == 0:
        return [""] * workers
    count = gpu_count()
    if count == 0:
        return None
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = stated.split(",") if stated else [str(index) for index in range(count)]
    share = 1.0 if gpus is None else gpus
    return [
        ",".join(names[index] for index in range(int(worker * share), int(worker * share) + max(1, round(share))))
        for worker in range(workers)
    ]


def gpu_count() -> int:
    """Return how many GPUs there are for PyTorch."""
    import torch

    return torch.cuda.device_count()


def default_workers(cpus: int, gpus: float | None) -> int:
    """Return how many cells fit on this machine by its cores and GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fit = max(1, cores // cpus)
    count = gpu_count() if gpus != 0 else 0
    return min(fit, max(1, int(count / (gpus or 1)))) if count else fit
