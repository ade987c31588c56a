"""Adapter files beside a base or a run, for drawing: attached where inlay has the method, else folded into weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ValidationError

from inlay.artifacts.state import glance
from inlay.base.contract import Base
from inlay.errors import ArtifactError, ConfigError
from inlay.methods import METHODS, Method
from inlay.run.attach import attach, take_over
from inlay.run.merge import files_of, merge_into, read_sources
from inlay.run.weights import base_name, load_whole


def load_adapted(
    target: str | Path, adapters: Sequence[Path], strengths: Sequence[float] = (), device: str | None = None
) -> Base:
    """Return a base, or a run's tuned model, with adapter files in it.

    Args:
        target: a base by its name, or a run directory.
        adapters: files of any format that is read, and run directories.
        strengths: of each adapter; all 1 when empty.
        device: where to; by default the GPU where there is one.

    Raises:
        ConfigError: strengths and adapters differ in number.
        ArtifactError: a file cannot be read, does not fit the base, or cannot have another strength than 1.
    """
    strengths = list(strengths) or [1.0] * len(adapters)
    if len(strengths) != len(adapters):
        raise ConfigError(
            f"--strength: {len(strengths)} given for {len(adapters)} adapters; give one for each, or none"
        )
    base = load_whole(target)
    folded: list[tuple[Path, float]] = []
    kept: list[tuple[Path, Method]] = []
    for adapter, strength in zip(adapters, strengths, strict=True):
        for path in files_of(adapter):
            method = stored_method(path)
            if method is None or strength != 1:
                folded.append((path, strength))
            else:
                kept.append((path, method))
    # Changes of weights first: they are relative to the base's own, and its layers are still its own.
    if folded:
        sources, _ = read_sources([path for path, _ in folded], [one for _, one in folded], base_name(target), base)
        merge_into(base, sources)
    for attachment, (path, _) in zip(attach([method for _, method in kept], base, 0), kept, strict=True):
        take_over(attachment, path)
    return base.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def stored_method(path: Path) -> Method | None:
    """Return the method whose result a file of inlay's is, None for any other file.

    Raises:
        ArtifactError: the file states a method that this version does not know.
    """
    stated = glance(path)[1].get("inlay.method") if path.is_file() else None
    if stated is None:
        return None
    try:
        return METHODS[json.loads(stated)["name"]].model_validate_json(stated)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(
            f"{path}: its inlay.method is none of this version ({reason}); a newer inlay may read it"
        ) from None
