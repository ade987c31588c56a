"""What a run measures: the loss on held-out pictures always, its pictures where the run file says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from inlay.base.contract import Base
from inlay.data.dataset import Dataset
from inlay.files import write_json
from inlay.methods import Attachment
from inlay.run.config import JobConfig
from inlay.run.directory import read_trace
from inlay.run.evaluation.drawing import Shots
from inlay.run.evaluation.early import few_pictures
from inlay.run.evaluation.figures import finite, loss_details
from inlay.run.evaluation.leave_one_out import leave_one_out
from inlay.run.evaluation.watch import Keeper, Watch, described, is_better
from inlay.run.pictures import Block, Row, grid, save_picture
from inlay.run.reporter import Reporter

EVALUATION = "evaluation.json"
PICTURES = "evaluation.png"
ROWS = 12
"""Prompts that the overview shows."""


class Evaluation:
    """One run's measurements, on the main process."""

    def __init__(
        self,
        config: JobConfig,
        base: Base,
        dataset: Dataset,
        attachments: Sequence[Attachment],
        parameters: Mapping[str, nn.Parameter],
        directory: Path,
        run_hash: str,
        held_out: Callable[[], Tensor | None],
        timesteps: Sequence[int],
        reporter: Reporter,
    ):
        """Prepare.

        Args:
            config: the run.
            base: with the methods attached.
            dataset: the pictures that it learns, and those held out.
            attachments: the methods.
            parameters: what trains.
            directory: the run directory.
            run_hash: of configuration and data.
            held_out: measures the losses on held-out pictures, [pictures, timesteps]; None without any.
            timesteps: of these losses.
            reporter: told how it goes.

        Raises:
            InlayError: the section `evaluate` asks for what cannot be.
        """
        self.config, self.dataset, self.directory = config, dataset, directory
        self.base, self.attachments, self.reporter = base, attachments, reporter
        self.timesteps = list(timesteps)
        self._held_out = held_out
        self._table: NDArray[np.float64] | None = None
        self.watch: Watch | None = None
        if config.evaluate is not None:
            reporter.phase("preparing to measure")
            self.watch = Watch(config, base, dataset, attachments, reporter.progress)
            for note in few_pictures(config.evaluate, tuple(self.watch.lens.kinds), len(self.watch.questions.prompts)):
                reporter.note(note)
        self.keeper = Keeper(directory, parameters, run_hash)

    @property
    def keep_best(self) -> str | None:
        """The metric that chooses the step whose weights are kept."""
        return self.config.evaluate.keep_best if self.config.evaluate is not None else None

    def validation_loss(self) -> float | None:
        """Measure the loss on held-out pictures with the present weights; None without any."""
        losses = self._held_out()
        self._table = None if losses is None else losses.numpy()
        return None if self._table is None else float(self._table.mean())

    def begin(self) -> None:
        """Measure the base before anything is trained, and take over what earlier sittings measured."""
        if self.watch is None:
            return
        self.watch.begin()
        self.watch.resume(read_trace(self.directory), self._resumed())

    def _resumed(self) -> int:
        from inlay.train.checkpoint import PATTERN, checkpoints

        found = checkpoints(self.directory / "checkpoints")
        matched = PATTERN.fullmatch(found[-1].name) if found else None
        return int(matched[1]) if matched else 0

    def due(self, step: int, last: bool) -> bool:
        """Return whether pictures are measured at a step."""
        return self.watch is not None and self.watch.due(step, last)

    def measure(self, step: int, seconds: float, loss: float | None) -> dict[str, Any]:
        """Measure the present weights, keep them where they are the best so far, and return what the trace gains.

        Args:
            step: optimizer steps done.
            seconds: of training.
            loss: on held-out pictures, where it was just measured.
        """
        assert self.watch is not None
        added: dict[str, Any] = {}
        if loss is None and self.keep_best == "validation_loss":
            loss = self.validation_loss()
            added["validation_loss"] = None if loss is None else finite(loss)
        best = self.watch.best() if self.keep_best else None
        added["metrics"] = self.watch.measure(step, seconds, loss)
        if self.keep_best:
            now = self.watch.history[-1]["metrics"].get(self.keep_best)
            if is_better(self.keep_best, now, best["metrics"][self.keep_best] if best else None):
                self.keeper.keep(step, self.watch.history[-1])
        return added

    def restore(self, last: int) -> int:
        """Put the weights of the best step in place where that is wanted; return the step whose weights are there."""
        if self.keep_best is None:
            return last
        kept = self.keeper.kept()
        if kept is None or kept[0] == last:
            return last
        self.keeper.restore()
        for attachment in self.attachments:
            attachment.at_step(kept[0] - 1)
        self._table = None
        value = kept[1]["metrics"][self.keep_best]
        self.reporter.note(
            f"{self.keep_best} was best at step {kept[0]} of {last} ({value:.4g}): these weights are kept"
        )
        return kept[0]

    def finish(self, record: dict[str, Any], kept: int) -> None:
        """Measure what the run leaves, and write it into its record.

        Args:
            record: of the run; ``metrics``, ``metric_details``, ``missing``, ``symptoms``, ``evaluation`` and the costs
                of measuring are filled in.
            kept: the step whose weights are in place.
        """
        metrics, missing, costs = record["metrics"], record["missing"], record["costs"]
        known: dict[str, Any] = {}
        if self.dataset.validation:
            if self._table is None:
                metrics["validation_loss"] = self.validation_loss()
            if self._table is not None and np.isfinite(self._table).all():
                pairing = f"{self.dataset.hash[:12]} {self.config.seed}"
                known["validation_loss"] = loss_details(
                    self._table, self.timesteps, "loss on held-out pictures", pairing
                )
        record["metric_details"] = known
        watch = self.watch
        if watch is None:
            return
        entry = next((one for one in watch.history if one["step"] == kept), None)
        if entry is None or watch.last is None or watch.last.step != kept:
            watch.measure(kept, entry["seconds"] if entry else costs["training_seconds"], metrics["validation_loss"])
        assert watch.last is not None
        found, more = watch.answers()
        for figures in (watch.last.figures, more):
            metrics |= {name: None if value is None else finite(value) for name, value in figures.values().items()}
            missing |= figures.missing
            known |= described(figures)
        for symptom in found:
            if symptom["present"]:
                self.reporter.note(symptom["sentence"])
        if watch.settings.leave_one_out:
            value, about, why = leave_one_out(self.config, self.dataset, record["costs"]["steps"], self.reporter)
            metrics["leave_one_out_loss"] = value
            if about is not None:
                known["leave_one_out_loss"] = about
            else:
                missing["leave_one_out_loss"] = why
        record["symptoms"] = found
        record["kept_step"] = kept
        record["evaluation"] = {**watch.about(), "history": watch.history}
        costs["evaluation_seconds"] = round(watch.spent, 3)
        costs["time_to_quality"] = watch.time_to_quality()
        write_json(self.directory / EVALUATION, summary(record))
        before = watch.before.prompts if watch.before else None
        save_picture(overview(watch.last.shots, before, "tuned"), self.directory / PICTURES)


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a run's record that `inlay evaluate` writes too."""
    keys = ("metrics", "metric_details", "missing", "symptoms", "evaluation")
    return {"target": {"kind": "run"}, **{key: record[key] for key in keys}}


def overview(shots: Shots | None, before: Shots | None, heading: str, other: str = "base") -> Any:
    """Lay out the first prompts' pictures, beside those of the base, or of another model, where there are some."""
    assert shots is not None
    groups: dict[str, list[int]] = {}
    for place, prompt in enumerate(shots.prompts or ("",) * len(shots)):
        groups.setdefault(prompt, []).append(place)
    rows = []
    for prompt, places in list(groups.items())[:ROWS]:
        places = places[:8]
        blocks = [Block(other, [before.pictures[place] for place in places])] if before is not None else []
        blocks.append(Block(heading, [shots.pictures[place] for place in places]))
        rows.append(Row(prompt or "pictures", blocks))
    return grid(rows)
