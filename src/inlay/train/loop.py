"""The training loop: steps, budget, checkpoints, a graceful stop. It knows no method and no model by name."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from inlay.errors import ArtifactError, TrainingError
from inlay.files import write_text, writing
from inlay.randomness import derive
from inlay.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from inlay.train.ema import EMA, Averages, PowerEMA
from inlay.train.graceful import GracefulStop
from inlay.train.optimizers import at_average, found_rate
from inlay.train.peak import peak_bytes
from inlay.train.precision import autocast
from inlay.train.schedules import multiplier
from inlay.train.settings import PowerEma, TrainSettings
from inlay.train.snapshots import drop_later, interval, take_snapshot

SMOOTHING = 0.98
"""Share of the old value in the smoothed loss that is shown."""


class Losses(Protocol):
    """What a step minimises, part by part: all terms of the loss, or some of them."""

    def __call__(self, step: int, part: slice) -> Tensor:
        """Return the losses of a part of step ``step``'s batch, [b] or one row a term [terms, b], with a graph."""
        ...


class Adaptive(Protocol):
    """State that trains beside the model and is saved with it in checkpoints, but is no part of the result."""

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """Steps the state's own parameters, at its own rate; None where it has none."""
        ...

    def before_step(self, step: int) -> None:
        """Prepare for optimizer step ``step``; called on every process, before any of its losses."""
        ...

    def after_step(self) -> None:
        """Take in the losses of the step; called on every process, when it is known that they are finite."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return all that must be saved to go on to the same bits, but the optimizer's state."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` returned."""
        ...


@dataclass
class Progress:
    """How far a run has come; handed to ``report`` after every step."""

    step: int
    total_steps: int | None
    images_seen: int
    seconds: float
    """In the loop, over all sittings."""
    loss: float
    smoothed_loss: float
    learning_rate: float
    gradient_norm: float | None
    """Before clipping; None where half precision overflowed and the step was left out."""
    seconds_left: float | None


@dataclass
class Outcome:
    """What the loop did."""

    steps: int
    seconds: float
    stopped: bool
    """Whether Ctrl-C or SIGTERM ended it before its budget."""
    smoothed_loss: float
    resumed_from: int | None
    peak_bytes: int
    """Largest device memory in use, or on a CPU the largest resident size of the process."""


class Loop:
    """Minimise losses over owned parameters.

    Gradients are summed over micro-batches and processes and divided by the whole batch, so how a batch is spread
    changes nothing but rounding. Everything random is drawn from (seed, purpose, step).
    """

    def __init__(
        self,
        settings: TrainSettings,
        parameters: dict[str, nn.Parameter],
        learning_rate: float | Mapping[str, float],
        seed: int,
        images_per_epoch: int,
        directory: Path,
        accelerator: Accelerator,
        run_hash: str,
        terms: Mapping[str, float] | None = None,
        adaptive: Adaptive | None = None,
    ):
        """Prepare optimizer and average.

        Args:
            settings: the train section.
            parameters: what to train, by name, on its device, float32.
            learning_rate: before the schedule; of all parameters, or of each by its name. The first is reported.
            seed: the run's seed.
            images_per_epoch: pictures in an epoch.
            directory: the run directory; trace and checkpoints go there.
            accelerator: of the run.
            run_hash: hash of the configuration and data that decide the result; a checkpoint of another is refused.
            terms: where the loss is a weighted sum, the names of its terms, under which the trace has them, and their
                weights.
            adaptive: what of the losses changes while training; None where nothing does.

        Raises:
            ConfigError: the batch cannot be spread evenly over the processes and micro-batches.
        """
        self.settings = settings
        self.parameters = parameters
        rates = learning_rate if isinstance(learning_rate, Mapping) else dict.fromkeys(parameters, learning_rate)
        groups: dict[float, dict[str, nn.Parameter]] = {}
        for name, parameter in parameters.items():
            groups.setdefault(rates[name], {})[name] = parameter
        self.learning_rate = next(iter(groups))
        self._shares = [rate / self.learning_rate for rate in groups]
        self.seed = seed
        self.directory = directory
        self.trace_path = directory / "trace.jsonl"
        self.accelerator = accelerator
        self.run_hash = run_hash
        self.terms = dict(terms or {"loss": 1.0})
        self.adaptive = adaptive
        self.total_steps = settings.total_steps(images_per_epoch)
        self.micro_batch = settings.micro_batch(accelerator.num_processes)
        self.optimizers = settings.optimizer.make(groups)
        self.ema = _averages(settings, parameters)
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=settings.precision == "fp16")
        self._stop = GracefulStop(accelerator.is_main_process)

    def run(
        self,
        losses: Sequence[Losses],
        names: Callable[[int, slice], Sequence[str]],
        report: Callable[[Progress], None],
        after_step: Callable[[int], None],
        validate: Callable[[], float | None],
        measure: Callable[[int, float, float | None, bool], dict[str, Any] | None] | None = None,
    ) -> Outcome:
        """Train until a budget is spent or the user stops.

        Args:
            losses: what to minimise; each is differentiated before the next is computed. Together they give one row
                for each of the terms, in their order.
            names: the files of a part of a batch, for messages; as many for each term.
            report: told the state after every step, on the main process.
            after_step: called after every step with the steps done, on every process; draws previews.
            validate: measures the loss on held-out pictures, None without any.
            measure: called after every step with the steps done, the seconds, the loss on held-out pictures where it is
                known, and whether it is the last. What it returns is added to the trace's entry; the time it takes then
                is not training's, and counts for no budget.

        Raises:
            TrainingError: a loss or gradient is not finite; the parameters are those before the step.
        """
        step, seconds, smoothed, resumed_from = self._resume()
        outcome = Outcome(step, seconds, False, smoothed, resumed_from, 0)
        every, validate_every = self.settings.checkpoint_every, self.settings.validate_every
        validate_every = validate_every or max(1, (self.total_steps or 1000) // 10)
        started = time.monotonic() - seconds
        last = self._finished(step, seconds)
        with self._stop.heeded(), self._trace(step) as trace:
            while not (last or outcome.stopped):
                rate = self.learning_rate * self._multiplier(step, seconds)
                means, norm = self.step(step, rate, losses, names)
                if self.settings.optimizer.finds_rate:
                    rate *= found_rate(self.optimizers[0])
                loss = means["loss"]
                step += 1
                smoothed = loss if step == 1 else SMOOTHING * smoothed + (1 - SMOOTHING) * loss
                seconds, stop = self._agree(time.monotonic() - started)
                last = self._finished(step, seconds)
                outcome.stopped = stop and not last
                entry: dict[str, Any] = {"step": step, **means, "learning_rate": rate, "gradient_norm": norm}
                entry["seconds"] = round(seconds, 4)
                value = None
                if step % validate_every == 0 or last:
                    with self.averaged():
                        value = validate()
                    if value is not None:
                        entry["validation_loss"] = value if math.isfinite(value) else None
                if measure is not None:
                    began = time.monotonic()
                    found = measure(step, seconds, value, last)
                    if found is not None:
                        entry |= found
                        started += time.monotonic() - began
                if trace is not None:
                    with writing(self.trace_path):
                        trace.write(json.dumps(entry, allow_nan=False) + "\n")
                        trace.flush()
                    self.accelerator.log(_numbers(entry), step=step)
                    left = self._seconds_left(step, seconds)
                    images = step * self.settings.batch_size
                    report(Progress(step, self.total_steps, images, seconds, loss, smoothed, rate, norm, left))
                after_step(step)
                self._take_snapshot(step, last)
                if outcome.stopped or (every and (step % every == 0 or last)):
                    self._save(step, seconds, smoothed)
        outcome.steps, outcome.seconds, outcome.smoothed_loss = step, seconds, smoothed
        outcome.peak_bytes = peak_bytes(self.accelerator.device)
        return outcome

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in place inside a ``with`` block, where the run or its optimizer averages."""
        if self.ema:
            average = self.ema.swapped()
        elif self.settings.optimizer.averages:
            average = at_average(self.optimizers[0])
        else:
            average = nullcontext()
        with average:
            yield

    def step(
        self, step: int, rate: float, losses: Sequence[Losses], names: Callable[[int, slice], Sequence[str]]
    ) -> tuple[dict[str, float], float | None]:
        """Do one optimizer step; :meth:`run` calls it.

        Args:
            step: optimizer steps done before.
            rate: the learning rate of the first parameter; others keep their ratio to it.
            losses: as in :meth:`run`.
            names: as in :meth:`run`.

        Returns:
            The loss and its terms by name, and the norm of the gradient before clipping; None instead of the norm where
            half precision overflowed, which lowers the scale of the loss and leaves the step out.

        Raises:
            TrainingError: loss or gradient are not finite; the parameters have not changed.
        """
        settings, device = self.settings, self.accelerator.device
        if self.adaptive:
            self.adaptive.before_step(step)
        # Of every picture of the whole batch, one row a term.
        values = torch.zeros((len(self.terms), settings.batch_size), device=device)
        weights = torch.tensor([*self.terms.values()], device=device)[:, None]
        share = self.micro_batch * settings.accumulate
        for micro in range(settings.accumulate):
            first = self.accelerator.process_index * share + micro * self.micro_batch
            part = slice(first, first + self.micro_batch)
            # Dropout inside methods draws from the global generator: seed it by what it is for.
            torch.manual_seed(derive(self.seed, "step", step, first))
            row = 0
            for minimise in losses:
                with autocast(device, settings.precision):
                    found = minimise(step, part).view(-1, self.micro_batch)
                rows = slice(row, row + len(found))
                self.scaler.scale((weights[rows] * found).sum() / settings.batch_size).backward()
                values[rows, part] = found.detach()
                row = rows.stop
        self._sum_over_processes(values)
        for optimizer in self._optimizers():
            self.scaler.unscale_(optimizer)
        limit = settings.clip_norm if settings.clip_norm is not None else math.inf
        gradient = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), limit)
        # All numbers at once: the only moment of a step at which the program waits for the device.
        *each, norm = torch.cat([values.reshape(-1), gradient.reshape(1)]).tolist()
        count = settings.batch_size
        means = {name: sum(each[row * count : (row + 1) * count]) / count for row, name in enumerate(self.terms)}
        loss = sum(weight * means[name] for name, weight in self.terms.items())
        if not (math.isfinite(loss) and (math.isfinite(norm) or self.scaler.get_scale() > 1)):
            for optimizer in self._optimizers():
                optimizer.zero_grad(set_to_none=True)
            raise self._not_finite(step, loss, each, names(step, slice(0, settings.batch_size)))
        for optimizer in self.optimizers:
            for group, share in zip(optimizer.param_groups, self._shares, strict=True):
                group["lr"] = rate * share
        for optimizer in self._optimizers():
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in self._optimizers():
            optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update()
        if self.adaptive:
            self.adaptive.after_step()
        return {"loss": loss, **means}, norm if math.isfinite(norm) else None

    def _not_finite(self, step: int, loss: float, values: Sequence[float], names: Sequence[str]) -> TrainingError:
        bad = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        what = "loss" if bad else f"gradient (of a loss of {loss:.4g})"
        files = ", ".join(dict.fromkeys(bad or names))
        return TrainingError(
            f"the {what} at step {step + 1} is not finite, for {files}; the weights are those before this step. Lower "
            "train.learning_rate, or look at these pictures"
        )

    def _sum_over_processes(self, values: Tensor) -> None:
        """Add up gradients and losses over processes, in one message."""
        if self.accelerator.num_processes == 1:
            return
        trained = [p for optimizer in self._optimizers() for group in optimizer.param_groups for p in group["params"]]
        parts = [values, *(parameter.grad for parameter in trained if parameter.grad is not None)]
        flat = self._summed(torch.cat([part.reshape(-1) for part in parts]))
        for part, piece in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(piece.view_as(part))

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizer of the result, and that of what trains beside it."""
        beside = self.adaptive.optimizer if self.adaptive else None
        return self.optimizers if beside is None else [*self.optimizers, beside]

    def _agree(self, seconds: float) -> tuple[float, bool]:
        """Return the main process's clock, and whether any process was asked to stop: all end at the same step."""
        asked = self._stop.asked
        if self.accelerator.num_processes == 1:
            return seconds, asked
        clock = seconds if self.accelerator.is_main_process else 0.0
        clock, asked = self._summed(torch.tensor([clock, float(asked)], device=self.accelerator.device)).tolist()
        return clock, asked > 0

    def _finished(self, step: int, seconds: float) -> bool:
        if self.total_steps is not None and step >= self.total_steps:
            return True
        return self.settings.minutes is not None and seconds >= self.settings.minutes * 60

    def _multiplier(self, step: int, seconds: float) -> float:
        progress = None
        if self.settings.minutes is not None:
            progress = seconds / (self.settings.minutes * 60)
            if self.total_steps is not None:
                progress = max(progress, step / self.total_steps)
        return multiplier(self.settings.schedule, step, self.total_steps, progress)

    def _seconds_left(self, step: int, seconds: float) -> float | None:
        left = []
        if self.total_steps is not None:
            left.append(seconds / step * (self.total_steps - step))
        if self.settings.minutes is not None:
            left.append(max(0.0, self.settings.minutes * 60 - seconds))
        return min(left, default=None)

    def _save(self, step: int, seconds: float, smoothed: float) -> None:
        if self.accelerator.is_main_process:
            tensors: dict[str, Tensor] = {f"parameter.{name}": value for name, value in self.parameters.items()}
            if self.ema:
                tensors |= {f"average.{name}": value for name, value in self.ema.state().items()}
            pickled: dict[str, Any] = {
                "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
                "scaler": self.scaler.state_dict(),
            }
            if self.adaptive:
                tensors |= {f"adaptive.{name}": value for name, value in self.adaptive.state().items()}
                if self.adaptive.optimizer:
                    pickled["adaptive"] = self.adaptive.optimizer.state_dict()
            save_checkpoint(
                self.directory / "checkpoints",
                step,
                tensors,
                pickled,
                {"seconds": seconds, "smoothed_loss": smoothed, "run_hash": self.run_hash},
                self.settings.keep_checkpoints,
            )
        self.accelerator.wait_for_everyone()

    def _take_snapshot(self, step: int, last: bool) -> None:
        """Store the averages from which others can be made after the run, where the run keeps such."""
        if not (isinstance(self.ema, PowerEMA) and isinstance(self.settings.ema, PowerEma)):
            return
        if self.accelerator.is_main_process:
            distance = interval(step, self.total_steps, self.settings.ema.snapshots)
            if last or step % distance == 0:
                lengths = {
                    length: dict(zip(self.parameters, self.ema.values(which), strict=True))
                    for which, length in enumerate(self.ema.sigma_rel)
                }
                take_snapshot(self.directory, step, distance, lengths)

    def _resume(self) -> tuple[int, float, float, int | None]:
        found = checkpoints(self.directory / "checkpoints")
        if self.accelerator.is_main_process and isinstance(self.ema, PowerEMA):
            drop_later(self.directory, int(found[-1].name.removeprefix("step-")) if found else 0)
        if not found:
            return 0, 0.0, 0.0, None
        tensors, optimizer, facts = load_checkpoint(found[-1])
        if facts["run_hash"] != self.run_hash:
            raise ArtifactError(
                f"{found[-1]} belongs to a run with other data, base or start; give another `output`, or bring back "
                "the pictures, base and start_from that the run began with"
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"parameter.{name}"])
        if self.ema:
            self.ema.load({n.removeprefix("average."): v for n, v in tensors.items() if n.startswith("average.")})
        if self.adaptive:
            self.adaptive.load(
                {n.removeprefix("adaptive."): v for n, v in tensors.items() if n.startswith("adaptive.")}
            )
            if self.adaptive.optimizer:
                self.adaptive.optimizer.load_state_dict(optimizer["adaptive"])
        states = optimizer["optimizer"]
        for one, state in zip(self.optimizers, [states] if isinstance(states, dict) else states, strict=True):
            one.load_state_dict(state)
        self.scaler.load_state_dict(optimizer["scaler"])
        return facts["step"], facts["seconds"], facts["smoothed_loss"], facts["step"]

    @contextmanager
    def _trace(self, step: int) -> Iterator[TextIO | None]:
        """Open the trace on the main process, without what a killed run wrote after the step from which it goes on."""
        if not self.accelerator.is_main_process:
            yield None
            return
        kept = []
        for line in self.trace_path.read_text(encoding="utf-8").splitlines() if self.trace_path.exists() else []:
            with suppress(ValueError):  # the last line of a killed process may be half a one
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        write_text(self.trace_path, "".join(kept))
        with self.trace_path.open("a", encoding="utf-8") as trace:
            yield trace

    def _summed(self, values: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return values
        result = self.accelerator.reduce(values, "sum")
        assert isinstance(result, Tensor)
        return result


def _averages(settings: TrainSettings, parameters: Mapping[str, nn.Parameter]) -> Averages | None:
    if settings.ema is None:
        return None
    if isinstance(settings.ema, PowerEma):
        return PowerEMA(parameters.values(), settings.ema.sigma_rel)
    return EMA(parameters.values(), settings.ema.decay, settings.ema.warmup)


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return a trace's entry as trackers take it: flat, without what is missing."""
    flat = {key: value for key, value in entry.items() if key not in ("step", "metrics")}
    flat |= {f"metrics/{key}": value for key, value in entry.get("metrics", {}).items()}
    return {key: value for key, value in flat.items() if value is not None}
