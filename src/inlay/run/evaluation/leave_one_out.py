"""The loss on pictures that were not trained on, where there are too few to hold some out: leave each out in turn."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from inlay.data.dataset import Dataset
from inlay.data.prior import given_pictures
from inlay.metrics.intervals import of_mean
from inlay.metrics.measure import Measure
from inlay.run.config import JobConfig, PreviewSettings
from inlay.run.evaluation.figures import details, finite
from inlay.run.reporter import Reporter, Silent

FOLDS = 20
"""Pictures up to which it is done: more can be held out (`data.validation`)."""


def leave_one_out(
    config: JobConfig, dataset: Dataset, steps: int, reporter: Reporter
) -> tuple[float | None, dict[str, Any] | None, str]:
    """Train without each picture in turn and measure the loss on it, by step (Stone 1974).

    Every training starts at the base, with the run's own settings and as many steps; nothing of it is kept.

    Args:
        config: the run.
        dataset: its pictures.
        steps: that the run did.
        reporter: told how many trainings are done.

    Returns:
        The mean loss at the end, what stands beside it (among it the means by step, and the step where the mean is
        least), and why there is none.
    """
    count = len(dataset)
    if not 3 <= count <= FOLDS:
        return None, None, f"leaving one out is for 3 to {FOLDS} pictures; there are {count}: use data.validation"
    if PartialState().num_processes > 1:
        return None, None, "it is measured in a run of one process"
    curves: list[dict[int, float]] = []
    for number in range(count):
        reporter.progress("training without one picture", number, count)
        curve = _train_without(config, dataset, number, steps)
        if curve is None:
            return None, None, "the user stopped before it was measured"
        curves.append(curve)
    reporter.progress("training without one picture", count, count)
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = np.array([[curve[step] for step in shared] for curve in curves])
    means = values.mean(0)
    found = of_mean(values[:, -1], np.arange(count))
    label, note = "leave-one-out loss", f"Each of {count} pictures was left out of a training of its own."
    measure = Measure(label, found.value, found.interval(), count, 0, "", "", "", dataset.hash[:12], note, found)
    best = int(means.argmin())
    by_step = [{"step": step, "value": finite(value)} for step, value in zip(shared, means, strict=True)]
    about = {**details("leave_one_out_loss", measure), "by_step": by_step, "best_step": shared[best]}
    return finite(found.value), about, ""


def _train_without(config: JobConfig, dataset: Dataset, number: int, steps: int) -> dict[int, float] | None:
    """Return the loss on a picture by step of a training without it; None where the user stopped it."""
    from inlay.run.accelerator import make_accelerator
    from inlay.run.job import Job  # which needs this module

    examples = list(dataset.examples)
    left_out = examples.pop(number)
    fold = replace(dataset, examples=tuple(examples), validation=(left_out,))
    train = config.train.model_copy(
        update={"steps": steps, "epochs": None, "minutes": None, "checkpoint_every": None, "trackers": ()}
    )
    preview = PreviewSettings(prompts=(left_out.caption,), pictures=1, steps=1)
    quiet = config.model_copy(update={"train": train, "preview": preview, "evaluate": None, "output": None})
    with tempfile.TemporaryDirectory(prefix="inlay-fold-") as place:
        directory = Path(place)
        accelerator = make_accelerator(quiet, directory)
        given = given_pictures(quiet.data, fold.resolution)
        result = Job(quiet, directory, fold, given, accelerator, Silent()).run()
        if not result.finished:
            return None
        from inlay.run.directory import read_trace

        entries = [(one["step"], one.get("validation_loss")) for one in read_trace(directory)]
    return {step: value for step, value in entries if value is not None and math.isfinite(value)}
