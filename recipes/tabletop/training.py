"""What the training scripts of this folder share: the learning rate, the progress line and the trace."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from inlay.randomness import derive


def batches(seed: int, purpose: str, count: int, size: int, steps: int) -> Iterator[torch.Tensor]:
    """Yield one batch of indices a step: every epoch is a new permutation of `count`, its short rest dropped."""
    per_epoch = count // size
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(derive(seed, purpose, epoch)))
        yield order[place * size : (place + 1) * size]


def cosine(optimizer: torch.optim.Optimizer, warmup: int, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule that rises linearly over `warmup` steps and falls to 1 % along a cosine."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        share = (step - warmup) / max(1, steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Trace:
    """Keeps measured values by step, prints a line now and then, and writes them as JSON.

    Args:
        path: the JSON file, written anew at every line.
        steps: how many steps the run takes.
        every: a line each so many steps; values between lines are averaged.
    """

    def __init__(self, path: Path, steps: int, every: int = 50):
        self.path, self.steps, self.every = path, steps, every
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._begin = time.perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)

    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.perf_counter() - self._begin

    def add(self, step: int, **values: float) -> None:
        """Take the values of one step, numbered from 0."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        done = step + 1
        if done % self.every and done != self.steps:
            return
        count = done % self.every or self.every
        row = {"step": done, "seconds": round(self.seconds(), 1)}
        row |= {name: round(total / count, 6) for name, total in self._sums.items()}
        self.rows.append(row)
        self._sums = {}
        left = self.seconds() / done * (self.steps - done)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "seconds"))
        print(f"step {done}/{self.steps}  {shown}  {left / 60:.1f} min left", flush=True)
        self.path.write_text(json.dumps({"machine": machine(), "rows": self.rows}, indent=1))


def machine() -> dict[str, str | int]:
    """Return what the figures of a run depend on besides the code."""
    return {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
