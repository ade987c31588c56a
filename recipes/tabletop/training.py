"""What the training scripts of this folder share: device, learning rate, the progress line and the trace."""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pictures import TRAIN

from inlay.randomness import derive
from inlay.run.machine import this_machine


def add_device(parser: argparse.ArgumentParser) -> None:
    """Give a script its option `--device`."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def add_training(parser: argparse.ArgumentParser, steps: int, batch: int, rate: float) -> None:
    """Give a script the options that every training has, with its defaults.

    Of `--steps` and `--seconds`, the first to be used up ends the training.
    """
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seconds", type=float, default=math.inf, help="for machines whose speed is not known")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--images", type=int, default=TRAIN)
    parser.add_argument("--threads", type=int, default=1)
    add_device(parser)


def device_name(device: str) -> str:
    """Return what figures call a device: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


def bf16_where_fast(device: torch.device) -> AbstractContextManager[Any]:
    """Return autocast to bf16, or on a CPU that only imitates bf16, which takes ten times as long, nothing."""
    if device.type == "cpu" and not this_machine().fast_bf16:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def batches(
    seed: int,
    purpose: str,
    count: int,
    size: int,
    steps: int,
    seconds: float = math.inf,
    *,
    done: int = 0,
    spent: float = 0.0,
) -> Iterator[torch.Tensor]:
    """Yield one batch of indices a step: every epoch is a new permutation of `count`, its short rest dropped.

    They end after so many steps, or at the first step after so many seconds. A training that goes on has `done` so many
    of the steps and `spent` so many of the seconds.
    """
    per_epoch = count // size
    begin = time.perf_counter() - spent
    order = None
    for step in range(done, steps):
        if step and time.perf_counter() - begin >= seconds:
            return
        epoch, place = divmod(step, per_epoch)
        if place == 0 or order is None:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(derive(seed, purpose, epoch)))
        yield order[place * size : (place + 1) * size]


def cosine(
    optimizer: torch.optim.Optimizer,
    warmup: int,
    steps: int,
    seconds: float = math.inf,
    *,
    done: int = 0,
    spent: float = 0.0,
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule that rises linearly over `warmup` steps and falls to 1 % along a cosine.

    It falls with the steps or with the seconds since this call, whichever are used up faster. A training that goes on
    has `done` so many of the steps and `spent` so many of the seconds.
    """
    begin = time.perf_counter() - spent

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        share = max((step - warmup) / max(1, steps - warmup), (time.perf_counter() - begin) / seconds)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor, done - 1)


class Trace:
    """Keeps measured values by step, prints a line now and then, and writes them as JSON.

    Values may be tensors: they are summed where they are, since to read each would wait for the device each time.

    Args:
        path: the JSON file, written anew at every line.
        steps: how many steps the run takes at most.
        every: a line each so many steps; values between lines are averaged.
        limit: how many seconds it takes at most.
        rows: what was measured before, by a training that goes on; its seconds count on from there.
    """

    def __init__(
        self,
        path: Path,
        steps: int,
        every: int = 50,
        limit: float = math.inf,
        rows: Sequence[dict[str, float]] = (),
    ):
        self.path, self.steps, self.every, self.limit = path, steps, every, limit
        self.rows: list[dict[str, float]] = list(rows)
        self._sums: dict[str, float | torch.Tensor] = {}
        self._begin = time.perf_counter() - (rows[-1]["seconds"] if rows else 0.0)
        path.parent.mkdir(parents=True, exist_ok=True)

    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.perf_counter() - self._begin

    def add(self, step: int, **values: float | torch.Tensor) -> None:
        """Take the values of one step, numbered from 0."""
        for name, value in values.items():
            one = value.detach().double() if isinstance(value, torch.Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + one
        done = step + 1
        if done % self.every and done != self.steps:
            return
        count = done % self.every or self.every
        row = {"step": done, "seconds": round(self.seconds(), 1)}
        row |= {name: round(float(total) / count, 6) for name, total in self._sums.items()}
        self.rows.append(row)
        self._sums = {}
        left = max(0.0, min(self.seconds() / done * (self.steps - done), self.limit - self.seconds()))
        shown = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "seconds"))
        print(f"step {done}/{self.steps}  {shown}  {left / 60:.1f} min left", flush=True)
        self.path.write_text(json.dumps({"machine": machine(), "rows": self.rows}, indent=1))


def machine() -> dict[str, str | int]:
    """Return what the figures of a run depend on besides the code."""
    return {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
