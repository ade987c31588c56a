"""A run from its configuration to its directory: the only place where the parts are put together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from inlay.base.contract import Base
from inlay.base.families import load_base
from inlay.base.scratch import Scratch
from inlay.base.settings import BaseSettings
from inlay.data.dataset import Batch, Dataset, load_dataset
from inlay.data.prior import Prior, given_pictures
from inlay.data.sources import Loaded
from inlay.files import write_text, writing
from inlay.run.accelerator import make_accelerator, trackers
from inlay.run.attach import attach
from inlay.run.check import check, check_length, overlong_note
from inlay.run.class_images import prepare_prior, save_contact_sheet
from inlay.run.classes import with_classes
from inlay.run.config import JobConfig, RunConfig
from inlay.run.directory import CLASS_IMAGES, RUN_FILE, TRACE, alone_in, finished_run, read_trace
from inlay.run.evaluation.during import Evaluation
from inlay.run.load import to_yaml
from inlay.run.pictures import draw_loss
from inlay.run.previews import Previews
from inlay.run.record import command_line, hardware, now, versions, write_record
from inlay.run.reporter import Reporter, Silent
from inlay.run.saving import save_result
from inlay.run.start import start
from inlay.run.words import check_words
from inlay.train.adaptive import AdaptiveObjective
from inlay.train.diffusion import Diffusion
from inlay.train.loop import Loop, Losses, Outcome
from inlay.train.precision import attention_kernel, autocast, keep_frozen


class Loader(Protocol):
    """Gives a base to a run, which changes it: a new one, or a copy of one that is kept."""

    def __call__(self, settings: BaseSettings, scratch: Scratch | None = None, seed: int = 0) -> Base:
        """Return the base; see :func:`inlay.base.families.load_base`."""
        ...


@dataclass
class Result:
    """A finished or stopped run."""

    directory: Path
    record: dict[str, Any]
    repeated: bool = False
    """Whether the directory held the finished run already, so that nothing was done."""
    main: bool = True
    """Whether this is the process that wrote the result; of several, one is."""

    @property
    def finished(self) -> bool:
        """Whether the run's budget was spent."""
        return self.record["status"] == "done"


def execute(config: JobConfig, directory: Path, reporter: Reporter | None = None, load: Loader = load_base) -> Result:
    """Run a job to its end, or go on with it where it was stopped.

    Args:
        config: a :class:`RunConfig` or a :class:`PretrainConfig`.
        directory: the run directory; made when absent. One that holds an unfinished run of the same configuration
            goes on from its latest checkpoint, a finished one is returned as it is; any other that is not empty is
            refused.
        reporter: told how it goes.
        load: gives the base; who does many runs need not read it from the disk for each.

    Raises:
        InlayError: see the kinds in :mod:`inlay.errors`; nothing but the run directory has been written.
    """
    config = config.model_copy(update={"output": None})  # where it goes is no part of what the run is
    reporter = reporter or Silent()
    finished = finished_run(config, directory)
    if finished is not None:
        return Result(directory, finished, repeated=True)
    architecture = check(config)
    dataset = load_dataset(config.data, architecture.resolution, config.seed, architecture.granularity)
    given = given_pictures(config.data, dataset.resolution)
    check_words(config, architecture, (example.caption for example in dataset.examples))
    accelerator = make_accelerator(config, directory)
    check_length(config, dataset.images_per_epoch, accelerator.num_processes)
    if not accelerator.is_main_process:
        reporter = Silent()
    for note in dataset.notes:
        reporter.note(note)
    with ExitStack() as stack:
        if accelerator.is_main_process:
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
                stack.enter_context(alone_in(directory))
                finished = finished_run(config, directory)  # by now, by a process that held it a moment ago
                if finished is not None and accelerator.num_processes == 1:
                    return Result(directory, finished, repeated=True)
                write_text(directory / RUN_FILE, to_yaml(config))
                (directory / TRACE).touch()
        accelerator.wait_for_everyone()
        return Job(config, directory, dataset, given, accelerator, reporter, load).run()


class Job:
    """One run in one process."""

    def __init__(
        self,
        config: JobConfig,
        directory: Path,
        dataset: Dataset,
        given: Loaded,
        accelerator: Accelerator,
        reporter: Reporter,
        load: Loader = load_base,
    ):
        """Load the base, let it draw what class pictures are missing, and attach the methods.

        Args:
            config: the job.
            directory: the run directory, which is there.
            dataset: the pictures to learn.
            given: the user's class pictures.
            accelerator: from :func:`inlay.run.accelerator.make_accelerator`.
            reporter: told how it goes.
            load: gives the base.
        """
        self.config = config
        self.directory = directory
        self.dataset = dataset
        self.accelerator = accelerator
        self.reporter = reporter
        self.main = accelerator.is_main_process
        reporter.phase(f"loading {config.base.model}")
        self.base = load(config.base, with_classes(config, dataset), config.seed)
        self.prior: Prior | None = None
        if config.data.prior is not None:
            self.prior = prepare_prior(config, self.base, dataset, given, accelerator, reporter.progress)
            for note in self.prior.dataset.notes:
                reporter.note(note)
        self.attachments = attach(config.methods, self.base, config.seed)
        self.start_hashes, notes = start(config, self.attachments, self.base)
        for note in notes:
            reporter.note(note)
        keep_frozen(self.base, config.train.precision, config.train.quantize)
        self.base.to(accelerator.device)  # only now, so that it never has to hold more than it trains with
        if config.train.gradient_checkpointing:
            self.base.unet.enable_gradient_checkpointing()
        tuned = frozenset().union(*(attachment.components for attachment in self.attachments))
        class_pictures = self.prior.dataset if self.prior is not None else None
        self.diffusion = Diffusion(self.base, dataset, config.objective, config.seed, tuned, class_pictures)
        self.parameters = {
            f"{index}.{name}": parameter
            for index, attachment in enumerate(self.attachments)
            for name, parameter in attachment.parameters().items()
        }
        self.learning_rates = {name: config.learning_rates[int(name.partition(".")[0])] for name in self.parameters}
        self.adaptive = AdaptiveObjective(self.diffusion, self.parameters, accelerator, config.train.precision)
        for part in tuned:
            self.base.components[part].train()
        captions = list(dict.fromkeys(example.caption for example in dataset.examples))
        self.previews = Previews(config.preview, self.base, dataset, captions, self.autocast, reporter)
        self._announce_overlong(captions)
        self._drawn: tuple[int, tuple[Batch, ...]] | None = None

    def _announce_overlong(self, captions: list[str]) -> None:
        own = [self.prior.settings.prompt] if self.prior is not None else []
        long = self.base.overlong([*captions, *own])
        if long:
            self.reporter.note(overlong_note([*captions, *own], long, self.base.architecture.prompt_ids))
        for prompt in self.base.overlong(list(self.config.preview.prompts or ())):
            self.reporter.note(f"the text encoder sees only the beginning of the prompt {prompt!r}")

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of the run's precision."""
        return autocast(self.accelerator.device, self.config.train.precision)

    def run(self) -> Result:
        """Train, draw, save."""
        config, directory, reporter = self.config, self.directory, self.reporter
        started = now()
        trainable = sum(parameter.numel() for parameter in self.parameters.values())
        with self.accelerator.main_process_first(), self.autocast(), self.base.evaluating():
            self.diffusion.build_caches(reporter.progress)
        if self.prior is not None and self.main:
            save_contact_sheet(self.prior, directory / CLASS_IMAGES)
        before = self._draw_before()
        given = [*self._data_hashes(), *self.start_hashes.values()]
        run_hash = " ".join([config.identity(), *given, str(self.base.file_hash)])
        loop = Loop(
            config.train,
            self.parameters,
            self.learning_rates,
            config.seed,
            self.dataset.images_per_epoch,
            directory,
            self.accelerator,
            run_hash,
            self.terms(),
            self.adaptive,
        )
        if trackers(config):
            self.accelerator.init_trackers("logs")

        def after_step(step: int) -> None:
            if config.preview.every and step % config.preview.every == 0 and self.main:
                with loop.averaged():
                    self.previews.save_step(step, directory / "previews" / f"step-{step:08d}.png")

        def held_out() -> torch.Tensor | None:
            with self.base.evaluating(), self.autocast():
                return self.diffusion.validation_losses()

        evaluation = Evaluation(
            config,
            self.base,
            self.dataset,
            self.attachments,
            self.parameters,
            directory,
            run_hash,
            held_out,
            self.diffusion.validation_timesteps.tolist(),
            reporter,
        )

        def measure(step: int, seconds: float, loss: float | None, last: bool) -> dict[str, Any] | None:
            if not self.main or not evaluation.due(step, last):
                return None
            with loop.averaged():
                return evaluation.measure(step, seconds, loss)

        if self.main:
            evaluation.begin()
        reporter.phase("training")
        positions = (self.dataset.resolution // self.base.architecture.downscale) ** 2
        with attention_kernel(self.accelerator.device, config.train.precision, positions):
            outcome = loop.run(
                self.losses(), self.names, reporter.step, after_step, evaluation.validation_loss, measure
            )
        self.accelerator.wait_for_everyone()  # the trace is whole from here on
        for attachment in self.attachments:
            attachment.at_step(outcome.steps - 1)  # a run that was resumed at its end has done no step
        record = self._record(started, outcome, trainable)
        with ExitStack() as stack:
            stack.enter_context(loop.averaged())
            if self.main and not outcome.stopped:
                kept = evaluation.restore(outcome.steps)
                self._finish(record, before)
                evaluation.finish(record, kept)
        if self.main:
            write_record(directory, record)
            if not outcome.stopped:
                shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        self.accelerator.end_training()
        return Result(directory, record, main=self.main)

    def batches(self, step: int) -> tuple[Batch, ...]:
        """Return what an optimizer step shows over all processes: the pictures to learn, then those of the class.

        They are kept for the step's other micro-batches.
        """
        if self._drawn is None or self._drawn[0] != step:
            for attachment in self.attachments:
                attachment.at_step(step)
            count = self.config.train.batch_size
            shown = [source.batch(self.config.seed, step, count) for source in (self.dataset, self.prior) if source]
            self._drawn = step, tuple(shown)
        return self._drawn[1]

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Show pictures in another order, with other noise, inside a ``with`` block: so analyses are repeated."""
        kept = self.config
        self.config, self._drawn = kept.model_copy(update={"seed": seed}), None
        try:
            yield
        finally:
            self.config, self._drawn = kept, None

    def terms(self) -> dict[str, float]:
        """Return the terms of the loss by name with their weights."""
        if self.prior is None:
            return {"loss": 1.0}
        return {"instance_loss": 1.0, "prior_loss": self.prior.settings.weight}

    def losses(self) -> list[Losses]:
        """Return what a step minimises, in as many passes through the denoiser as a micro-batch takes."""

        def some(which: slice) -> Losses:
            return lambda step, part: self.diffusion.losses(self.batches(step)[which], step, part)

        return [some(slice(0, 1)), some(slice(1, 2))] if self.config.data.prior_apart else [some(slice(0, 2))]

    def names(self, step: int, part: slice) -> list[str]:
        """Return the files of a part of every batch of a step."""
        return [item.example.id for batch in self.batches(step) for item in batch.items[part]]

    def _data_hashes(self) -> list[str]:
        return [self.dataset.hash] if self.prior is None else [self.dataset.hash, self.prior.identity]

    def _draw_before(self) -> torch.Tensor | None:
        """Return the base's own pictures; None where there is no base to show."""
        if not self.main or self.config.scratch is not None:
            return None
        with ExitStack() as stack:
            for attachment in self.attachments:
                stack.enter_context(attachment.disabled())
            return self.previews.draw()

    def _finish(self, record: dict[str, Any], before: torch.Tensor | None) -> None:
        """Save the result, its samples and its loss curve."""
        self.reporter.phase("saving")
        save_result(self.config, self.base, self.attachments, record, self.directory)
        self.previews.save_samples(before, self.directory / "samples.png")
        draw_loss(read_trace(self.directory), self.directory / "loss.png")

    def _record(self, started: str, outcome: Outcome, trainable: int) -> dict[str, Any]:
        config, dataset = self.config, self.dataset
        total = sum(parameter.numel() for parameter in self.base.unet.parameters())
        validation = [entry["validation_loss"] for entry in read_trace(self.directory) if "validation_loss" in entry]
        last = validation[-1] if validation else None
        metrics: dict[str, Any] = {"smoothed_loss": outcome.smoothed_loss, "validation_loss": last}
        reasons = {}
        if not dataset.validation:
            reasons["validation_loss"] = "no pictures were held out (data.validation)"
        elif last is None:
            reasons["validation_loss"] = "not finite" if validation else "the run stopped before it was measured"
        return {
            "status": "stopped" if outcome.stopped else "done",
            "kind": "tune" if isinstance(config, RunConfig) else "pretrain",
            "started": started,
            "ended": now(),
            "command": command_line(),
            "config": config.model_dump(mode="json"),
            "config_hash": config.content_hash(),
            "data": {
                "hash": dataset.hash,
                "pictures": len(dataset),
                "held_out": len(dataset.validation),
                "resolution": dataset.resolution,
                "skipped": [skipped._asdict() for skipped in dataset.skipped],
                "prior": self._prior_record(),
            },
            "base": {"name": self.base.name, "hash": self.base.file_hash, "prediction": self.base.prediction},
            "start_from": self.start_hashes,
            "versions": versions(),
            "hardware": hardware(),
            "processes": self.accelerator.num_processes,
            "costs": {
                "trainable_parameters": trainable,
                "denoiser_parameters": total,
                "steps": outcome.steps,
                "images_seen": outcome.steps * config.train.batch_size,
                "class_images_seen": outcome.steps * config.train.batch_size if self.prior is not None else 0,
                "training_seconds": round(outcome.seconds, 3),
                "seconds_per_step": round(outcome.seconds / max(1, outcome.steps), 5),
                "peak_bytes": outcome.peak_bytes,
                "result_bytes": None,
            },
            "resumed_from_step": outcome.resumed_from,
            "metrics": metrics,
            "metric_details": {},
            "missing": reasons,
            "files": [],
        }

    def _prior_record(self) -> dict[str, Any] | None:
        if self.prior is None:
            return None
        shown = self.prior.dataset
        return {
            "hash": shown.hash,
            "pictures": len(shown),
            "given": self.prior.given,
            "drawn": len(shown) - self.prior.given,
            "skipped": [skipped._asdict() for skipped in shown.skipped],
        }
