"""Do timesteps help or hurt each other? Train on one part of the path and measure the loss on every other.

Source: Hang et al. 2023, arXiv 2303.09556, section 3.2 and figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from inlay.errors import ConfigError
from inlay.objective.live import LiveObjective, draw_in_bin
from inlay.objective.timesteps import TimestepSampling, Uniform, Within
from inlay.randomness import derive, stream
from inlay.run.analysis import bin_edges, measure_gradients, measured_job, record_head
from inlay.run.config import JobConfig
from inlay.run.job import Job
from inlay.run.record import now
from inlay.run.reporter import Reporter
from inlay.train.loop import Loop


def analyze_conflict(
    config: JobConfig, reporter: Reporter, bins: int, trained_bins: Sequence[int], samples: int, draws: int
) -> dict[str, Any]:
    """Fine-tune on single timestep bins and on all, each time from the same weights; measure every bin's change.

    Args:
        config: the job; its method trains, for `train.steps`, with the plain loss.
        reporter: told how it goes.
        bins: equal parts of the path.
        trained_bins: which of them to train on, counted from 0.
        samples: pictures by which a bin's loss and gradient are measured; the same noise before and after.
        draws: how often each training is repeated with pictures and noise in another order, and how often gradients
            are measured; at least 2.

    Returns:
        The record, JSON-ready. ``changes`` holds, for `uniform` and for each bin, the change of every bin's mean loss
        relative to the loss before, its standard error over samples and draws together, and the change in each draw.
        ``cosines`` holds the mean cosine between gradients of different draws, a bin with itself among them: 1 where
        gradients are without noise.

    Raises:
        ConfigError: there are no such bins, or the run has no number of steps.
        InlayError: as :func:`inlay.run.job.execute`.
    """
    wrong = [index for index in trained_bins if not 0 <= index < bins]
    if wrong or len(set(trained_bins)) != len(trained_bins):
        raise ConfigError(f"bins to train on: {list(trained_bins)}; must be different numbers from 0 to {bins - 1}")
    if config.train.steps is None:
        raise ConfigError("train.steps: must be set, so that every bin is trained equally long")
    started = now()
    with measured_job(config, reporter) as job:
        edges = bin_edges(job, bins)
        timesteps = job.diffusion.path.timesteps
        means, spread = cosines_between_draws(measure_gradients(job, bins, samples, draws, reporter))
        before = _losses(job, bins, samples, reporter)
        first = {name: parameter.detach().clone() for name, parameter in job.parameters.items()}
        samplings: dict[str, TimestepSampling] = {"uniform": Uniform()}
        for index in trained_bins:
            samplings[str(index)] = Within(start=edges[index] / timesteps, end=edges[index + 1] / timesteps)
        changes = {}
        trainings = len(samplings) * draws
        for number, (name, sampling) in enumerate(samplings.items()):
            what = "all timesteps" if name == "uniform" else f"timesteps {edges[int(name)]} to {edges[int(name) + 1]}"
            differences = []
            for draw in range(draws):
                reporter.phase(f"training on {what} ({number * draws + draw + 1} of {trainings})")
                _train(job, sampling, derive(config.seed, "conflict training", draw), reporter)
                differences.append(_losses(job, bins, samples, reporter) - before)
                with torch.no_grad():
                    for parameter_name, parameter in job.parameters.items():
                        parameter.copy_(first[parameter_name])
            changes[name] = _change(np.stack(differences), before.mean(1))
        return {
            **record_head("conflict", config, job, started),
            "bins": bins,
            "edges": edges,
            "samples": samples,
            "draws": draws,
            "steps": config.train.steps,
            "loss_before": before.mean(1).tolist(),
            "cosines": means.tolist(),
            "cosines_spread": spread.tolist(),
            "changes": changes,
        }


def cosines_between_draws(gradients: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation, over pairs of draws, of the cosines between bins' gradients.

    Both of a pair come from different pictures and noise. So what a bin has in common with itself, on the diagonal, is
    measured like what it has in common with others, and shows how much of a gradient is noise.

    Args:
        gradients: [draws, bins, P].

    Returns:
        Two symmetric matrices, float64 [bins, bins].
    """
    unit = torch.nn.functional.normalize(gradients.double(), dim=2)
    pairs = [
        (unit[one] @ unit[other].T).numpy() for one in range(len(unit)) for other in range(len(unit)) if one != other
    ]
    both = np.stack(pairs)
    return both.mean(0), both.std(0)


def _change(differences: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """Return the record of one training from its changes of losses, [draws, bins, samples]."""
    draws, _, samples = differences.shape
    by_draw = differences.mean(2) / before
    over_samples = differences.mean(0).std(1, ddof=1) / np.sqrt(samples) / before
    over_draws = by_draw.std(0, ddof=1) / np.sqrt(draws)
    return {
        "relative_change": by_draw.mean(0).tolist(),
        "standard_error": np.hypot(over_samples, over_draws).tolist(),
        "by_draw": by_draw.tolist(),
    }


def conclusion(record: dict[str, Any]) -> list[str]:
    """Return a sentence for each bin that was trained on: what it did to itself, its neighbours and the rest."""
    said = []
    for name, change in record["changes"].items():
        values, errors = change["relative_change"], change["standard_error"]
        better = sum(value < -2 * error for value, error in zip(values, errors, strict=True))
        worse = sum(value > 2 * error for value, error in zip(values, errors, strict=True))
        counts = f"{better} bins got better, {worse} worse, {record['bins'] - better - worse} neither beyond 2 errors"
        if name == "uniform":
            said.append(f"trained on all timesteps: {counts}")
            continue
        index, edges = int(name), record["edges"]
        own = f"its own loss changed by {100 * values[index]:+.2f} %"
        said.append(f"trained on {edges[index]} to {edges[index + 1]}: {own}; {counts}")
    return said


def _train(job: Job, sampling: TimestepSampling, seed: int, reporter: Reporter) -> None:
    """Train for the job's steps on pictures, noise and timesteps that follow from ``seed``."""
    diffusion = job.diffusion
    plain = diffusion.objective.model_copy(update={"timesteps": sampling})
    usual, diffusion.live = diffusion.live, LiveObjective(plain, diffusion.path, diffusion.seed, job.base.device)
    with TemporaryDirectory(prefix="inlay-analysis-") as folder:
        loop = Loop(
            job.config.train,
            job.parameters,
            job.learning_rates,
            seed,
            job.dataset.images_per_epoch,
            Path(folder),
            job.accelerator,
            "conflict",
        )
        with job.seeded(seed):
            outcome = loop.run(job.losses(), job.names, reporter.step, lambda step: None, lambda: None)
    diffusion.live = usual
    if outcome.stopped:  # nothing is worth keeping of half an analysis
        raise KeyboardInterrupt


@torch.no_grad()
def _losses(job: Job, bins: int, samples: int, reporter: Reporter) -> np.ndarray:
    """Return the plain losses of every bin's samples, float64 [bins, samples]; always of the same ones."""
    seed, diffusion = job.config.seed, job.diffusion
    rows = []
    with job.base.evaluating(), job.autocast():
        for index in range(bins):
            generator = stream(seed, "conflict timesteps", index)
            timesteps = draw_in_bin(generator, index, bins, samples, diffusion.path.timesteps)
            parts = timesteps.split(job.config.train.micro_batch(job.accelerator.num_processes))
            of_bin = derive(seed, "conflict pictures", index)
            reporter.progress("measuring losses", index + 1, bins)
            rows.append(torch.cat([diffusion.errors(part, of_bin, number) for number, part in enumerate(parts)]))
    return torch.stack(rows).double().cpu().numpy()
