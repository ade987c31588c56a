"""Two real training steps, measured: what a plan can only estimate."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.run.config import JobConfig
from inlay.run.plan import Plan

if TYPE_CHECKING:
    from inlay.data.dataset import Dataset
    from inlay.data.settings import DataSettings
    from inlay.data.sources import Loaded

STEPS = 2
"""The first step pays for memory that is allotted and kernels that are chosen; only the second is timed."""


@dataclass(frozen=True)
class Probe:
    """What two steps took, and what follows for the whole run. Names as in ``inlay plan --json``."""

    seconds_per_step: float
    peak_bytes: int
    """Largest device memory so far, or on a CPU the largest resident size of the process."""
    step_flops_per_second: float
    encoding_seconds: float
    """Estimate for all pictures and captions, from those of two batches; a cache may spare it."""
    training_seconds: float | None
    """Estimate for the run; null when the number of steps is not known."""
    previews_seconds: float
    """Estimate for all rounds of previews, at the FLOPs a second of training."""
    class_images_seconds: float | None
    """Estimate for drawing the class pictures that are missing, at the same speed; null when they are not counted."""
    finish_seconds: float | None
    """Estimate for everything together."""

    def to_json(self) -> dict[str, Any]:
        """Return the measurements as JSON-ready data."""
        return dataclasses.asdict(self)


def probe(config: JobConfig, plan: Plan) -> Probe:
    """Load the weights, take two optimizer steps as the run would, and measure. Nothing is left behind.

    Args:
        config: the job.
        plan: of the same job.

    Raises:
        ConfigError: the base has no weights here.
        DataError: the pictures are not there.
        TrainingError: a loss is not finite.
    """
    from inlay.data.dataset import load_dataset
    from inlay.run.accelerator import make_accelerator
    from inlay.run.job import Job
    from inlay.run.reporter import Silent
    from inlay.train.loop import Loop, Progress

    dataset = load_dataset(config.data, plan.effective.resolution_pixels, config.seed, plan.effective.multiple_pixels)
    few = _pictures_of_two_steps(dataset, config)
    budget = {"steps": STEPS, "epochs": None, "minutes": None, "checkpoint_every": None, "trackers": ()}
    data, given = _with_blank_class_pictures(config, plan.effective.resolution_pixels)
    short = config.model_copy(update={"train": config.train.model_copy(update=budget), "data": data})
    seconds: list[float] = []

    def report(state: Progress) -> None:
        seconds.append(state.seconds)

    with tempfile.TemporaryDirectory(prefix="inlay-probe-") as folder, _caches_in(Path(folder) / "cache"):
        job = Job(short, Path(folder), few, given, make_accelerator(short, Path(folder)), Silent())
        began = time.monotonic()
        with job.autocast(), job.base.evaluating():
            job.diffusion.build_caches(lambda what, done, total: None)
        encoding = time.monotonic() - began
        loop = Loop(
            short.train,
            job.parameters,
            job.learning_rates,
            config.seed,
            few.images_per_epoch,
            Path(folder),
            job.accelerator,
            "probe",
            adaptive=job.adaptive,
        )
        outcome = loop.run(
            job.losses(),
            job.names,
            report,
            lambda step: None,
            lambda: None,
        )
    per_step = seconds[1] - seconds[0]
    speed = (plan.work.forward_step_flops + plan.work.backward_step_flops) / per_step
    steps = config.train.total_steps(dataset.images_per_epoch)
    training = None if steps is None else steps * per_step
    if config.train.minutes is not None:
        training = min(limit for limit in (training, config.train.minutes * 60) if limit is not None)
    class_images = plan.data.prior
    to_encode = len(dataset) + len(dataset.validation)
    to_encode += (class_images.pictures or 0) if class_images is not None else 0
    encoding *= to_encode / (len(few) + len(given.examples))
    previews = preview_rounds(config, training, per_step) * plan.work.preview_flops / speed
    drawing = None if plan.work.class_images_flops is None else plan.work.class_images_flops / speed
    return Probe(
        seconds_per_step=per_step,
        peak_bytes=outcome.peak_bytes,
        step_flops_per_second=speed,
        encoding_seconds=encoding,
        training_seconds=training,
        previews_seconds=previews,
        class_images_seconds=drawing,
        finish_seconds=None if training is None or drawing is None else encoding + training + previews + drawing,
    )


def preview_rounds(config: JobConfig, training_seconds: float | None, seconds_per_step: float) -> int:
    """Return how often previews are drawn: after training, before it where there is a base to show, and during it."""
    during = 0
    if config.preview.every is not None and training_seconds is not None:
        during = int(training_seconds / seconds_per_step) // config.preview.every
    return during + (1 if config.scratch is not None else 2)


def _pictures_of_two_steps(dataset: Dataset, config: JobConfig) -> Dataset:
    """Return a data set of only the pictures that the first steps show, so that no others need to be encoded."""
    batches = [dataset.batch(config.seed, step, config.train.batch_size) for step in range(STEPS)]
    shown = dict.fromkeys(item.example_index for batch in batches for item in batch.items)
    return dataclasses.replace(dataset, examples=tuple(dataset.examples[index] for index in shown), validation=())


def _with_blank_class_pictures(config: JobConfig, resolution: int) -> tuple[DataSettings, Loaded]:
    """Return the data section with as many given class pictures as two steps show: to measure, none need be drawn."""
    from PIL import Image

    from inlay.data.sources import Example, Loaded

    prior = config.data.prior
    if prior is None:
        return config.data, Loaded([], [], [])
    size = (resolution, resolution)
    names = [f"blank {number}" for number in range(STEPS * config.train.batch_size)]
    blanks = [Example(name, prior.prompt, name, *size, lambda: Image.new("RGB", size)) for name in names]
    given = prior.model_copy(update={"source": "blank", "images": None})
    return config.data.model_copy(update={"prior": given}), Loaded(blanks, [], [])


@contextmanager
def _caches_in(directory: Path) -> Iterator[None]:
    before = os.environ.get("INLAY_CACHE")
    os.environ["INLAY_CACHE"] = str(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ["INLAY_CACHE"]
        else:
            os.environ["INLAY_CACHE"] = before
