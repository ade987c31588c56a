"""Measuring a run on the way and at its end, and keeping the weights of its best step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inlay.base.contract import Base
from inlay.data.dataset import Dataset
from inlay.files import read_tensors, write_tensors
from inlay.methods import Attachment
from inlay.run.config import JobConfig
from inlay.run.evaluation import symptoms
from inlay.run.evaluation.drawing import Drawing, Shots, shown
from inlay.run.evaluation.early import extractors
from inlay.run.evaluation.figures import details, finite
from inlay.run.evaluation.measuring import Figures, Lens, References, choose, measure
from inlay.run.evaluation.prompts import Questions, questions
from inlay.run.evaluation.table import better

BEST = "best.safetensors"
"""Among the checkpoints: the trained weights of the best step so far, and what was measured of them."""
PROGRESS = 0.95
"""Share of the way from the base's value to the best one at which a metric counts as reached."""


@dataclass
class Measured:
    """What one measurement found."""

    step: int
    seconds: float
    """Of training, without measuring."""
    figures: Figures
    shots: Shots | None


class Watch:
    """Measures a run's pictures by its section ``evaluate``, with randomness of its own: training stays the same."""

    def __init__(
        self,
        config: JobConfig,
        base: Base,
        dataset: Dataset,
        attachments: Sequence[Attachment],
        progress: Callable[[str, int, int], None],
    ):
        """Load extractors and references.

        Args:
            config: the run, with a section ``evaluate``.
            base: with the methods attached.
            dataset: the pictures that it learns.
            attachments: the methods.
            progress: told how the drawing goes.

        Raises:
            DataError: the references cannot be read.
            ArtifactError: an extractor's weights are missing.
        """
        assert config.evaluate is not None
        self.settings = config.evaluate
        self.config = config
        self.base = base
        self.attachments = attachments
        self.progress = progress
        side = dataset.resolution
        captions = list(dict.fromkeys(example.caption for example in dataset.examples))
        self.questions: Questions = questions(self.settings, config, captions)
        self.drawing = Drawing.of(self.settings, side, config.train.precision)
        self.lens = Lens(extractors(self.settings, config.base.model), str(base.device))
        self.dataset = dataset
        if self.settings.reference is None:
            self.references = References("the training pictures", self.training)
        else:
            self.references = References.read(self.settings.reference, self.settings.references, side)
        self.metrics = choose(
            self.settings.metrics,
            list(self.lens.kinds.values()),
            reference=True,
            repeats=self.settings.pictures > 1,
            world="tabletop" in self.lens.kinds.values(),
        )
        self.before: symptoms.OfBase | None = None
        self.history: list[dict[str, Any]] = []
        self.last: Measured | None = None
        self.spent = 0.0
        """Seconds in measurements."""

    @cached_property
    def training(self) -> tuple[NDArray[np.uint8], ...]:
        """The first pictures that the run learns, as it sees them."""
        return shown(self.dataset.examples[: self.settings.references], self.dataset.resolution)

    def begin(self) -> None:
        """Measure the base, before anything is trained: where every metric starts, and the threshold of symptoms."""
        if self.config.scratch is not None:
            return
        started = time.monotonic()
        with ExitStack() as stack:
            for attachment in self.attachments:
                stack.enter_context(attachment.disabled())
            if self.settings.symptoms:
                copies = self.settings.copies
                self.before = symptoms.draw_base(self.base, self.drawing, self.questions, copies, self.progress)
                shots = self.before.prompts
            else:
                plain = self.questions.plain
                shots = self.drawing.draw_base(self.base, plain, self._told("drawing with the base"))
        self._note(Measured(0, 0.0, measure(self.metrics, self.lens, shots, self.references), shots))
        self.spent += time.monotonic() - started

    def due(self, step: int, last: bool) -> bool:
        """Return whether a step is measured."""
        every = self.settings.every
        return last or (every is not None and step % every == 0)

    def measure(self, step: int, seconds: float, loss: float | None) -> dict[str, float | None]:
        """Draw with the present weights and return the flat figures.

        Args:
            step: optimizer steps done.
            seconds: of training so far.
            loss: on held-out pictures, where it is known for this step.
        """
        started = time.monotonic()
        shots = self.drawing.draw(
            self.base, self.questions.prompts, self.questions.plain, self._told(f"drawing at step {step}")
        )
        figures = measure(self.metrics, self.lens, shots, self.references)
        self._note(Measured(step, seconds, figures, shots), loss)
        self.spent += time.monotonic() - started
        return {name: value if value is None else finite(value) for name, value in figures.values().items()}

    def _told(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total)

    def _note(self, measured: Measured, loss: float | None = None) -> None:
        values = {name: value if value is None else finite(value) for name, value in measured.figures.values().items()}
        if loss is not None:
            values["validation_loss"] = finite(loss)
        self.history = [entry for entry in self.history if entry["step"] != measured.step]
        self.history.append({"step": measured.step, "seconds": round(measured.seconds, 3), "metrics": values})
        self.history.sort(key=lambda entry: entry["step"])
        self.last = measured

    def resume(self, trace: Sequence[Mapping[str, Any]], step: int) -> None:
        """Take over the measurements of earlier sittings from the trace, up to the step that is gone on from."""
        for entry in trace:
            if "metrics" in entry and entry["step"] <= step:
                values = dict(entry["metrics"])
                if "validation_loss" in entry:
                    values["validation_loss"] = entry["validation_loss"]
                self.history.append({"step": entry["step"], "seconds": entry["seconds"], "metrics": values})

    def best(self) -> dict[str, Any] | None:
        """Return the measurement after training's beginning at which ``keep_best`` was best, the earlier of equals."""
        name = self.settings.keep_best
        assert name is not None
        sign = 1 if better(name) == "higher" else -1
        seen = [entry for entry in self.history if entry["step"] and entry["metrics"].get(name) is not None]
        return max(seen, key=lambda entry: (sign * entry["metrics"][name], -entry["step"]), default=None)

    def time_to_quality(self) -> dict[str, dict[str, Any]]:
        """Return when each metric had come `PROGRESS` of the way from its value before training to its best one."""
        found = {}
        names = dict.fromkeys(name for entry in self.history for name in entry["metrics"])
        for name in names:
            side = better(name)
            seen = [entry for entry in self.history if entry["metrics"].get(name) is not None]
            if side is None or len(seen) < 2:
                continue
            sign = 1 if side == "higher" else -1
            start = sign * seen[0]["metrics"][name]
            top = max(sign * entry["metrics"][name] for entry in seen)
            if not top > start:
                continue
            goal = start + PROGRESS * (top - start)
            reached = next(entry for entry in seen if sign * entry["metrics"][name] >= goal)
            found[name] = {
                "value": reached["metrics"][name],
                "goal": sign * goal,
                "steps": reached["step"],
                "seconds": reached["seconds"],
            }
        return found

    def answers(self) -> tuple[list[dict], Figures]:
        """Return what goes wrong, judged by the pictures of the last measurement."""
        assert self.last is not None
        if self.before is None or self.last.shots is None:
            return [], Figures()
        started = time.monotonic()
        tuned = symptoms.draw_tuned(
            self.base, self.drawing, self.questions, self.last.shots, self.settings.copies, self.progress
        )
        found = symptoms.find(tuned, self.before, self.lens, self.training, self.questions.why_none)
        self.spent += time.monotonic() - started
        return found

    def about(self) -> dict[str, Any]:
        """Return what a record says of how it was measured."""
        settings = self.settings
        return {
            "prompts": self.questions.prompts,
            "class_prompts": list(self.questions.class_prompts),
            "pictures": settings.pictures,
            "steps": settings.steps,
            "guidance": settings.guidance,
            "negative_prompt": settings.negative_prompt,
            "seed": settings.seed,
            "reference": self.references.name,
            "features": list(self.lens.extractors),
        }


def described(figures: Figures) -> dict[str, dict[str, Any]]:
    """Return the details of figures by flat name."""
    return {name: details(name, one) for name, one in figures.measures.items()}


class Keeper:
    """Keeps the trained weights of the best step in a file, so that a stopped run does not forget them."""

    def __init__(self, directory: Path, parameters: Mapping[str, nn.Parameter], run_hash: str):
        """Name the file; nothing is written yet.

        Args:
            directory: the run directory.
            parameters: what is trained.
            run_hash: of the run; a file of another is passed over.
        """
        self.path = directory / "checkpoints" / BEST
        self.parameters = parameters
        self.run_hash = run_hash

    def keep(self, step: int, about: Mapping[str, Any]) -> None:
        """Write the present weights, with what was measured of them as JSON values."""
        metadata = {"step": str(step), "run_hash": self.run_hash, "about": json.dumps(about)}
        write_tensors(self.path, dict(self.parameters), metadata)

    def kept(self) -> tuple[int, dict[str, Any]] | None:
        """Return the step whose weights are kept, and what was measured of them."""
        if not self.path.is_file():
            return None
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            about = file.metadata()
        if about["run_hash"] != self.run_hash:
            return None
        return int(about["step"]), json.loads(about["about"])

    @torch.no_grad()
    def restore(self) -> None:
        """Put the kept weights in place."""
        tensors = read_tensors(self.path)[0]
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])


def is_better(name: str, value: float | None, than: float | None) -> bool:
    """Return whether a value of a metric is better than another; anything is better than nothing."""
    if value is None or not math.isfinite(value):
        return False
    if than is None:
        return True
    return value > than if better(name) == "higher" else value < than
