"""Averages of the weights kept at a few moments of a run, from which others are put together afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from inlay.errors import ArtifactError
from inlay.files import write_tensors
from inlay.train.profiles import Profile

AVERAGES = "averages"
"""The folder of the snapshots in the run directory."""
PATTERN = re.compile(r"step-(\d{8})\.safetensors")


def interval(step: int, total_steps: int | None, count: int) -> int:
    """Return how many steps lie between snapshots.

    Args:
        step: steps done.
        total_steps: of the run; None where only the clock ends it. The distance then doubles whenever there would be
            more than ``count`` snapshots, and every other one of the earlier is given up.
        count: largest number of snapshots.
    """
    if total_steps is not None:
        return -(-total_steps // count)
    distance = 1
    while step > distance * count:
        distance *= 2
    return distance


def snapshots(directory: Path) -> dict[int, Path]:
    """Return the snapshots of a run directory by step, oldest first."""
    found = {path: PATTERN.fullmatch(path.name) for path in sorted((directory / AVERAGES).glob("step-*"))}
    return {int(match[1]): path for path, match in found.items() if match}


def drop_later(directory: Path, step: int) -> None:
    """Remove snapshots of a killed run that were taken after the step from which it goes on."""
    for taken, path in snapshots(directory).items():
        if taken > step:
            path.unlink()


def take_snapshot(directory: Path, step: int, distance: int, averages: Mapping[float, Mapping[str, Tensor]]) -> Path:
    """Store averages, and give up the earlier snapshots that lie nearer to each other than ``distance``.

    Args:
        directory: the run directory.
        step: steps done.
        distance: from :func:`interval`.
        averages: by sigma_rel, then by the parameter's name.

    Raises:
        ArtifactError: the disk is full or cannot be written; earlier snapshots are whole.
    """
    tensors = {f"{length}/{name}": value for length, values in averages.items() for name, value in values.items()}
    metadata = {"step": str(step), "sigma_rel": json.dumps(list(averages))}
    path = write_tensors(directory / AVERAGES / f"step-{step:08d}.safetensors", tensors, metadata)
    for taken, earlier in snapshots(directory).items():
        if taken < step and taken % distance:
            earlier.unlink()
    return path


def read_profiles(paths: Mapping[int, Path]) -> dict[Profile, Path]:
    """Return which averages snapshots hold, and where.

    Raises:
        ArtifactError: a file is broken.
    """
    found = {}
    for step, path in paths.items():
        try:
            with safe_open(path, framework="pt") as file:
                lengths = json.loads(file.metadata()["sigma_rel"])
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path}: not a snapshot of averages: {error}") from None
        found |= {Profile(length, step): path for length in lengths}
    return found


def combine(sources: Mapping[Profile, Path], factors: Sequence[float], name: str) -> Tensor:
    """Return the sum of a parameter's stored averages, each with its factor, float32.

    Summed in float64, one file after the other: factors of both signs can be large and cancel.

    Raises:
        ArtifactError: a file lacks the parameter, or is broken.
    """
    total: Tensor | None = None
    for (profile, path), factor in zip(sources.items(), factors, strict=True):
        if factor == 0:
            continue
        try:
            with safe_open(path, framework="pt") as file:
                term = file.get_tensor(f"{profile.sigma_rel}/{name}").double() * factor
        except SafetensorError as error:
            raise ArtifactError(f"{path}: {error}") from None
        total = term if total is None else total + term
    assert total is not None
    return total.float()
