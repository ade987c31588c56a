"""Checkpoints: everything that a run needs to go on to the same bits."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inlay.errors import ArtifactError
from inlay.files import writing

PATTERN = re.compile(r"step-(\d{8})")


def checkpoints(directory: Path) -> list[Path]:
    """Return the finished checkpoints of a run, oldest first."""
    found = [path for path in directory.glob("step-*") if PATTERN.fullmatch(path.name) and path.is_dir()]
    return sorted(found)


def save_checkpoint(
    directory: Path, step: int, tensors: dict[str, Tensor], optimizer: dict[str, Any], facts: dict[str, Any], keep: int
) -> Path:
    """Write a checkpoint beside its place, then rename it there; then drop all but the latest ``keep``.

    Args:
        directory: the run's checkpoint directory.
        step: optimizer steps done.
        tensors: trained parameters and averages by name.
        optimizer: the optimizer's (and scaler's) ``state_dict``.
        facts: JSON values.
        keep: how many checkpoints stay.

    Raises:
        ArtifactError: the disk is full or cannot be written; the earlier checkpoints are whole.
    """
    target = directory / f"step-{step:08d}"
    unfinished = directory / f".{target.name}.{os.getpid()}"
    with writing(target):
        for abandoned in directory.glob(".step-*"):  # of a process that was killed while it saved
            shutil.rmtree(abandoned)
        unfinished.mkdir(parents=True)
        try:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
                unfinished / "trained.safetensors",
            )
            _save_pickle(optimizer, unfinished / "optimizer.pt")
            (unfinished / "facts.json").write_text(json.dumps({"step": step, **facts}, indent=2) + "\n")
            for path in unfinished.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            if target.exists():
                shutil.rmtree(target)
            os.replace(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    for stale in checkpoints(directory)[:-keep]:
        shutil.rmtree(stale)
    return target


def _save_pickle(state: dict[str, Any], path: Path) -> None:
    try:
        torch.save(state, path)
    except RuntimeError as error:  # how torch reports a disk that is full
        raise OSError(f"torch could not write it: {error}") from error


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return (tensors, optimizer, facts) of a checkpoint. Nothing in it is executed.

    Raises:
        ArtifactError: a file is missing or broken.
    """
    try:
        tensors = load_file(path / "trained.safetensors")
        optimizer = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
        facts = json.loads((path / "facts.json").read_text())
    except Exception as error:
        raise ArtifactError(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {error}); remove it to go on from the one "
            "before, or from the start"
        ) from error
    return tensors, optimizer, facts
