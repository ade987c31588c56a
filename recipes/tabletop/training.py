"""What the training scripts of this folder share: device, learning rate, the progress line and the trace."""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pictures import TRAIN

from inlay.randomness import derive
from inlay.run.machine import this_machine
from inlay.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from inlay.train.ema import Averages


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


def batches(seed: int, purpose: str, count: int, size: int, steps: int, done: int = 0) -> Iterator[torch.Tensor]:
    """Yield one batch of indices a step: every epoch is a new permutation of `count`, its short rest dropped.

    A training that goes on has `done` so many of the steps.
    """
    per_epoch = count // size
    order = None
    for step in range(done, steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or order is None:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(derive(seed, purpose, epoch)))
        yield order[place * size : (place + 1) * size]


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


class Training:
    """The loop of a training script: what is learnt when, how fast, what is shown of it, and how it goes on.

    Iterating yields the number of each step and the indices of its batch, until `--steps` or `--seconds` are used up;
    the script computes a loss of them for :meth:`learn`. The learning rate rises linearly over `warmup` steps and falls
    to 1 % along a cosine, with the steps or with the seconds, whichever are used up faster.

    Args:
        args: of `add_training`.
        optimizer: whose rate is set.
        purpose: names the order of the pictures.
        count: how many there are.
        warmup: steps.
        trace: the JSON file of what was measured.
        every: a line of it each so many steps, and a checkpoint.
        seed: of the order.
        clipped: parameters whose gradients are cut to a norm of 1 together.
        kept: what a stopped training goes on from besides the optimizer, by name: models, and averages of them.
        folder: where its checkpoints are; without one it begins anew.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        optimizer: torch.optim.Optimizer,
        *,
        purpose: str,
        count: int,
        warmup: int,
        trace: Path,
        every: int = 50,
        seed: int = 0,
        clipped: Iterable[torch.nn.Parameter] = (),
        kept: dict[str, torch.nn.Module | Averages] | None = None,
        folder: Path | None = None,
    ):
        self.args, self.optimizer, self.warmup = args, optimizer, warmup
        self.every, self.clipped, self.kept, self.folder = every, list(clipped), kept or {}, folder
        self.done, rows = self._go_on(folder) if folder else (0, [])
        self.trace = Trace(trace, args.steps, every, args.seconds, rows)
        self._order = batches(seed, purpose, count, args.batch, args.steps, self.done)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor, self.done - 1)

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor]]:
        for chosen in self._order:
            if self.done and self.trace.seconds() >= self.args.seconds:
                return
            yield self.done, chosen
            self.done += 1
            if self.folder and self.done % self.every == 0:
                self._save(self.folder)

    def learn(self, loss: torch.Tensor, /, **values: torch.Tensor) -> None:
        """Take one step down a loss, and keep values of it for the trace."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clipped:
            torch.nn.utils.clip_grad_norm_(self.clipped, 1.0)
        self.optimizer.step()
        self._schedule.step()
        self.trace.add(self.done, **values)

    def summary(self) -> dict[str, int | float | str]:
        """Return what the figures of every training begin with."""
        return {
            "steps": self.done,
            "batch": self.args.batch,
            "seconds": round(self.trace.seconds(), 1),
            "device": device_name(self.args.device),
        }

    def close(self) -> None:
        """Drop the checkpoints: what was learnt has been saved."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        by_steps = (step - self.warmup) / max(1, self.args.steps - self.warmup)
        share = max(by_steps, self.trace.seconds() / self.args.seconds)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    def _settings(self) -> dict[str, str]:
        return {name: str(value) for name, value in vars(self.args).items() if name not in ("out", "threads", "device")}

    def _go_on(self, folder: Path) -> tuple[int, list[dict[str, float]]]:
        """Take over the latest checkpoint, if there is one; return the steps done and the rows of the trace."""
        found = checkpoints(folder)
        if not found:
            return 0, []
        tensors, optimizer, facts = load_checkpoint(found[-1])
        for name, value in self._settings().items():
            if facts["settings"].get(name) != value:
                sys.exit(
                    f"{found[-1]} is of a training with {name} {facts['settings'].get(name)}, not {value}: give that, "
                    "another --out, or remove it"
                )
        for name, part in self.kept.items():
            mark = f"{name}/"
            state = {key.removeprefix(mark): value for key, value in tensors.items() if key.startswith(mark)}
            part.load(state) if isinstance(part, Averages) else part.load_state_dict(state)
        self.optimizer.load_state_dict(optimizer)
        print(f"goes on after step {facts['step']}", flush=True)
        return facts["step"], facts["rows"]

    def _save(self, folder: Path) -> None:
        tensors = {
            f"{name}/{key}": value
            for name, part in self.kept.items()
            for key, value in (part.state() if isinstance(part, Averages) else part.state_dict()).items()
        }
        facts = {"settings": self._settings(), "rows": self.trace.rows}
        save_checkpoint(folder, self.done, tensors, self.optimizer.state_dict(), facts, keep=1)


def machine() -> dict[str, str | int]:
    """Return what the figures of a run depend on besides the code."""
    return {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
