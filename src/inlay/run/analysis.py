"""What the analyses of objectives share: a job put together to be measured, and the head of their records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from inlay.data.dataset import load_dataset
from inlay.data.prior import given_pictures
from inlay.errors import ConfigError
from inlay.objective.multitask import bin_of
from inlay.objective.settings import Objective
from inlay.run.accelerator import make_accelerator
from inlay.run.check import check
from inlay.run.config import JobConfig
from inlay.run.job import Job
from inlay.run.record import command_line, hardware, now, versions
from inlay.run.reporter import Reporter
from inlay.train.gradients import Compared, bin_gradients

NUMBERS = 1_000_000
"""Trained numbers that are compared at most."""


@contextmanager
def measured_job(config: JobConfig, reporter: Reporter) -> Iterator[Job]:
    """Load a job's base, attach its methods and encode its pictures; nothing is trained, drawn or left behind.

    The plain loss is measured, and class pictures (`data.prior`) are left out, whatever the run file says.

    Args:
        config: the job.
        reporter: told how it goes.

    Raises:
        InlayError: as :func:`inlay.run.job.execute`.
    """
    plain = Objective(prediction=config.objective.prediction)
    data = config.data.model_copy(update={"prior": None})
    train = config.train.model_copy(update={"trackers": (), "checkpoint_every": None, "ema": None})
    config = config.model_copy(update={"objective": plain, "data": data, "train": train, "output": None})
    architecture = check(config)
    dataset = load_dataset(data, architecture.resolution, config.seed, architecture.granularity)
    given = given_pictures(data, dataset.resolution)
    with TemporaryDirectory(prefix="inlay-analysis-") as folder:
        job = Job(config, Path(folder), dataset, given, make_accelerator(config, Path(folder)), reporter)
        with job.autocast(), job.base.evaluating():
            job.diffusion.build_caches(reporter.progress)
        yield job


def measure_gradients(job: Job, bins: int, samples: int, draws: int, reporter: Reporter) -> torch.Tensor:
    """Return the gradient of every bin's plain loss in each of several draws, float32 [draws, bins, P] on the CPU.

    Args:
        job: from :func:`measured_job`.
        bins: equal parts of the path.
        samples: pictures a bin, in micro-batches of the run.
        draws: how often; another draw sees other pictures, noise and timesteps.
        reporter: told how far it is.
    """
    compared = Compared(job.parameters, (), NUMBERS, job.config.seed)
    train = job.config.train
    at_once = train.micro_batch(job.accelerator.num_processes)
    found = []
    for draw in range(draws):

        def progress(done: int, total: int, draw: int = draw) -> None:
            reporter.progress("measuring gradients", draw * total + done, draws * total)

        found.append(
            bin_gradients(
                job.diffusion, compared, bins, samples, at_once, draw, job.accelerator, train.precision, progress
            ).cpu()
        )
    return torch.stack(found)


def bin_edges(job: Job, bins: int) -> list[int]:
    """Return the first timestep of each bin, and the number of timesteps.

    Raises:
        ConfigError: there are more bins than timesteps.
    """
    timesteps = job.diffusion.path.timesteps
    if bins > timesteps:
        raise ConfigError(f"{bins} bins: the path has only {timesteps} timesteps")
    return [*torch.searchsorted(bin_of(timesteps, bins), torch.arange(bins)).tolist(), timesteps]


def record_head(kind: str, config: JobConfig, job: Job, started: str) -> dict[str, Any]:
    """Return what every analysis' record begins with."""
    return {
        "kind": kind,
        "started": started,
        "ended": now(),
        "command": command_line(),
        "config": config.model_dump(mode="json"),
        "config_hash": config.content_hash(),
        "data": {"hash": job.dataset.hash, "pictures": len(job.dataset)},
        "base": {"name": job.base.name, "hash": job.base.file_hash, "prediction": job.base.prediction},
        "trained_parameters": sum(parameter.numel() for parameter in job.parameters.values()),
        "versions": versions(),
        "hardware": hardware(),
    }
