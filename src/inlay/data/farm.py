"""The rendered world drawn by all cores: processes that draw while the threads of this one wait for them.

Drawing is numpy under the interpreter's lock: threads alone draw no faster than one core. The processes are
interpreters of their own that talk over pipes, not those of `multiprocessing`: a script needs no `__main__` guard, and
nothing is forked.

This module lies beside the world and not in it, because what lies in it decides the pictures' identity.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

import numpy as np

import inlay
from inlay.data.tabletop import World
from inlay.errors import DataError

TOGETHER = 64
"""Pictures that a process is asked for at once."""
FEW = 200
"""Pictures that are drawn here before processes start, which takes about as long."""


class Farm:
    """Processes that draw; a thread that asks for pictures has one to itself meanwhile.

    Args:
        processes: how many.

    Raises:
        DataError: they cannot be started.
    """

    def __init__(self, processes: int):
        self._workers: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        # Where inlay lies is told, since a script may have found it by its own sys.path. Of the numerical libraries'
        # threads one a process is enough: there is a process for every core.
        known = os.pathsep.join([str(Path(inlay.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            for _ in range(processes):
                worker = subprocess.Popen(
                    [sys.executable, "-P", "-m", "inlay.data.farm"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, **single, "PYTHONPATH": known},
                )
                self._workers.append(worker)
                self._idle.put(worker)
        except OSError as error:
            self.close()
            raise DataError(f"The rendered world: no process can be started to draw it: {error}") from error

    def fill(self, images: np.ndarray, world: World, indices: Sequence[int]) -> None:
        """Draw the pictures of a part at some indices into ``images``, uint8 [N, size, size, 3], all processes at once.

        Raises:
            DataError: a process has ended; the others are ended too.
        """

        def some(begin: int) -> None:
            part = slice(begin, begin + TOGETHER)
            images[part] = self.images(world, indices[part])

        with ThreadPoolExecutor(len(self._workers)) as pool:
            under_way = [pool.submit(some, begin) for begin in range(0, len(indices), TOGETHER)]
            try:
                for one in under_way:
                    one.result()
            except BaseException:
                self.close()  # requests that still wait then fail too, instead of being drawn
                raise

    def images(self, world: World, indices: Sequence[int]) -> np.ndarray:
        """Return pictures of a part, uint8 [N, size, size, 3]: those of ``world[index].image``.

        Raises:
            DataError: the process that draws them has ended.
        """
        return self._ask(world, indices, False).reshape(len(indices), world.size, world.size, 3)

    def masks(self, world: World, indices: Sequence[int]) -> np.ndarray:
        """Return masks of a part, uint8 [N, size, size]: those of ``world.mask(index)``.

        Raises:
            DataError: the process that draws them has ended.
        """
        return self._ask(world, indices, True).reshape(len(indices), world.size, world.size)

    def close(self) -> None:
        """End all processes at once."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout, worker.stderr):
                assert pipe is not None
                with suppress(OSError):  # closing sends what a process that died did not take
                    pipe.close()
        self._workers = []

    def _ask(self, world: World, indices: Sequence[int], mask: bool) -> np.ndarray:
        request = [world.part, world.seed, world.size, mask, [int(index) for index in indices]]
        wanted = len(indices) * world.size**2 * (1 if mask else 3)
        worker = self._idle.get()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            with suppress(OSError):  # it has died, which the answer's length shows
                worker.stdin.write(json.dumps(request).encode() + b"\n")
                worker.stdin.flush()
            answer = worker.stdout.read(wanted)
            if len(answer) < wanted:
                raise _ended(worker, world, indices)
        finally:
            # Also one that has died: who waits for a process gets it and fails too, instead of waiting for ever.
            self._idle.put(worker)
        return np.frombuffer(answer, np.uint8)


def _ended(worker: subprocess.Popen[bytes], world: World, indices: Sequence[int]) -> DataError:
    worker.kill()
    code = worker.wait()
    assert worker.stderr is not None
    told = worker.stderr.read().decode(errors="replace").strip().splitlines()
    why = told[-1] if told else "it was killed, perhaps for want of memory" if code < 0 else "it left no message"
    return DataError(
        f"tabletop:{world.part}/{indices[0]}: the process that was to draw it has ended with exit code {code}: {why}"
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Opened:
    """What `farm` holds open: counts what is drawn, and starts the processes once that is worth it."""

    def __init__(self, stack: ExitStack):
        self._stack, self._lock = stack, Lock()
        self._drawn, self._farm = 0, None

    def take(self) -> Farm | None:
        """Return who draws the next picture; None for the caller itself."""
        with self._lock:
            self._drawn += 1
            if self._farm is None and self._drawn > FEW and cores() > 1 and sys.executable:
                self._farm = Farm(cores())
                self._stack.callback(self._farm.close)
            return self._farm


_opened: _Opened | None = None


@contextmanager
def farm() -> Iterator[None]:
    """Let all cores draw inside a ``with`` block, if many pictures of the world are read in it.

    Who reads them needs several threads: each waits for one picture. The processes end with the block.
    """
    global _opened
    if _opened is not None:
        yield
        return
    with ExitStack() as stack:
        _opened = _Opened(stack)
        try:
            yield
        finally:
            _opened = None


def draw_image(world: World, index: int) -> np.ndarray:
    """Return ``world[index].image``, drawn by another process inside `farm`."""
    other = _other()
    return world[index].image if other is None else other.images(world, [index])[0]


def draw_mask(world: World, index: int) -> np.ndarray:
    """Return ``world.mask(index)``, drawn by another process inside `farm`."""
    other = _other()
    return world.mask(index) if other is None else other.masks(world, [index])[0]


def _other() -> Farm | None:
    opened = _opened  # once, as another thread may end the block in between
    return None if opened is None else opened.take()


def _serve() -> None:
    """Answer requests until there are no more: the asking process has closed the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the asking one ends this one
    for line in sys.stdin.buffer:
        part, seed, size, mask, indices = json.loads(line)
        world = World(part, seed, size)
        for index in indices:
            drawn = world.mask(index) if mask else world[index].image
            sys.stdout.buffer.write(drawn.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
