"""Run the study: train, measure, write one small record a training. What is there already is left out.

    python studies/min-snr/study.py --seeds 3            # all that is missing; stop and start it as you like
    python studies/min-snr/study.py --seeds 3 --list     # what is missing
    python studies/min-snr/study.py --analyses           # conflict and Pareto sweep, on the eps model of seed 0

Runs lie under `runs/min-snr` (`--runs`) and can be deleted when their records are written.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import features
import numpy as np
import protocol
import torch
from protocol import Cell

from inlay.base.contract import Base
from inlay.base.sampling import initial_noise, sample
from inlay.data.dataset import load_dataset
from inlay.files import write_json
from inlay.metrics.frechet import frechet
from inlay.metrics.reference import Reference, summarise
from inlay.objective.settings import Objective
from inlay.randomness import derive
from inlay.run.attach import attach
from inlay.run.config import JobConfig, RunConfig
from inlay.run.directory import load_run
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.run.load_job import load_job
from inlay.run.record import hardware, now, versions
from inlay.run.reporter import Silent
from inlay.train.diffusion import Diffusion
from inlay.train.loop import Progress
from inlay.train.snapshots import combine, read_profiles, snapshots

PICTURES = 512
"""Drawn a measurement, always from the same noise."""
SOLVER_STEPS = 12
LOSSES = 256
"""Held-out pictures, each with its own noise, that measure the loss of a part of the timesteps."""
ANALYSES = {"conflict": "conflict.json", "pareto": "pareto.json"}


class Lines(Silent):
    """Says every hundred steps how far a training is."""

    def step(self, state: Progress) -> None:
        if state.step % 100 == 0:
            left = f", {state.seconds_left:.0f} s left" if state.seconds_left else ""
            print(f"  step {state.step} of {state.total_steps}{left}", flush=True)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/min-snr"))
    parser.add_argument("--most", type=int, help="trainings at most")
    parser.add_argument("--list", action="store_true", help="name what is missing and end")
    parser.add_argument("--analyses", action="store_true", help="conflict and Pareto sweep instead of trainings")
    arguments = parser.parse_args()
    if arguments.analyses:
        analyse(arguments.runs)
        return
    missing = [cell for cell in protocol.cells(arguments.seeds) if not cell.record.exists()][: arguments.most]
    if arguments.list:
        print("\n".join(cell.name for cell in missing))
        return
    reference = summarise(features.digit_features(features.digits()))
    began = time.monotonic()
    for number, cell in enumerate(missing):
        spent = time.monotonic() - began
        left = f", {spent / number * (len(missing) - number) / 60:.0f} min left" if number else ""
        print(f"{cell.name} ({number + 1} of {len(missing)}{left})", flush=True)
        write_json(cell.record, rounded(measure(cell, arguments.runs / cell.name, reference)))


def measure(cell: Cell, directory: Path, reference: Reference) -> dict[str, Any]:
    """Train a cell and return its record."""
    config = load_job(protocol.RECIPE, cell.overrides())
    run = execute(config, directory, Lines()).record
    if run["status"] != "done":
        sys.exit("stopped; the same command goes on from there")
    base = load_run(directory)[0]
    (attachment,) = attach(config.methods, base, config.seed)
    weights = attachment.parameters()
    return {
        "setting": cell.setting,
        "target": cell.target,
        "weighting": cell.weighting,
        "gamma": cell.gamma,
        "seed": cell.seed,
        "config_hash": run["config_hash"],
        "data_hash": run["data"]["hash"],
        "parameters": run["costs"]["trainable_parameters"],
        "training_seconds": run["costs"]["training_seconds"],
        "distances": [distance(base, weights, directory, step, reference) for step in protocol.MEASURED],
        "losses": losses(base, config),
        "ended": now(),
        "versions": versions(),
        "hardware": hardware(),
    }


def distance(
    base: Base, weights: dict[str, torch.nn.Parameter], directory: Path, step: int, reference: Reference
) -> dict[str, Any]:
    """Return the Frechet distance of pictures drawn with the averaged weights of a step."""
    path = snapshots(directory)[step]
    stored = read_profiles({step: path})
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(combine(stored, [1.0], f"0.{name}"))
    side = base.architecture.resolution
    noise = initial_noise(base, [derive(0, "study noise", number) for number in range(PICTURES)], (side, side))
    pictures = sample(base, [""] * PICTURES, noise, SOLVER_STEPS, guidance=1.0, batch_size=64).numpy()
    found = frechet(features.digit_features(pictures, "study noise"), reference)
    interval = found.interval
    return {
        "step": step,
        "value": found.value,
        "interval": None if interval is None else [interval.low, interval.high],
        "pictures": found.pictures,
        "extractor": found.extractor,
        "fingerprint": found.fingerprint,
    }


@torch.no_grad()
def losses(base: Base, config: JobConfig) -> dict[str, Any]:
    """Return the squared error of the clean held-out picture by part of the timesteps, whatever the target is.

    The pictures, noise and timesteps are the same for all trainings of a seed.
    """
    dataset = load_dataset(config.data, base.architecture.resolution, config.seed)
    held = dataclasses.replace(dataset, examples=dataset.validation, validation=())
    plain = Objective(prediction=config.objective.prediction)
    diffusion = Diffusion(base, held, plain, config.seed, frozenset({"unet"}))
    edges = [round(part * diffusion.path.timesteps / protocol.BINS) for part in range(protocol.BINS + 1)]
    means, errors = [], []
    with base.evaluating():
        diffusion.build_caches(lambda what, done, total: None)
        for number, (first, end) in enumerate(pairwise(edges)):
            timesteps = torch.linspace(first, end - 1, LOSSES).round().long()
            own = diffusion.errors(timesteps, derive(config.seed, "study losses"), number).double()
            snr = diffusion.path.snr(timesteps).double()
            # |x0 error|^2 = |eps error|^2 / S = |v error|^2 / (S + 1)
            clean = {"sample": own, "epsilon": own / snr, "v_prediction": own / (snr + 1)}[config.objective.prediction]
            means.append(clean.mean().item())
            errors.append(clean.std().item() / LOSSES**0.5)
    return {"edges": edges, "clean_error": means, "standard_error": errors}


def analyse(runs: Path) -> None:
    """Measure conflict and optimality on the plain eps model of seed 0."""
    from inlay.run.analysis_pictures import draw_conflict, draw_pareto
    from inlay.run.conflict import analyze_conflict
    from inlay.run.pareto import analyze_pareto

    pipeline = runs / Cell("epsilon", "snr", None, 0).name / "pipeline"
    if not pipeline.is_dir():
        sys.exit(f"{pipeline} is not there: train it first (--most 12 does)")
    config = validate(
        RunConfig,
        {
            "base": str(pipeline),
            "data": {"source": "digits", "resolution": 8, "prompt": ""},
            "method": "full",
            "train": {"steps": 60, "batch_size": protocol.BATCH, "learning_rate": 1e-4, "trackers": []},
        },
    )
    jobs = {
        "conflict": (lambda: analyze_conflict(config, Lines(), 10, (1, 2, 3), 192, 3), draw_conflict),
        "pareto": (lambda: analyze_pareto(config, Lines(), 10, 192, 5), draw_pareto),
    }
    for name, (run, draw) in jobs.items():
        path = protocol.RECORDS / ANALYSES[name]
        if path.exists():
            continue
        print(name, flush=True)
        record = run()
        record = {key: value for key, value in record.items() if key not in ("command", "config", "gram")}
        write_json(path, rounded(record))
        draw(record, protocol.HERE / "pictures" / f"{name}.png")


def rounded(value: Any) -> Any:
    """Return the same with floats of six digits: records stay small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, (list, tuple, np.ndarray)) else value


if __name__ == "__main__":
    main()
