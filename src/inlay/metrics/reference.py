"""Statistics of a reference set: computed once, saved, and used only with features of the same extractor."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inlay.errors import ArtifactError, DataError
from inlay.metrics.frechet import symmetric_root
from inlay.metrics.measure import Features

FORMAT = "inlay-reference-statistics-1"
"""What the header of a file calls itself."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Mean and covariance of a reference set's features: all that a Frechet distance needs of it."""

    mean: NDArray[np.float64]
    """[D]."""
    covariance: NDArray[np.float64]
    """[D, D], divided by N - 1."""
    pictures: int
    """N."""
    extractor: str
    fingerprint: str
    """See `Features.fingerprint`."""
    content: str
    """See `Features.content`."""

    @cached_property
    def root(self) -> NDArray[np.float64]:
        """The symmetric root of the covariance."""
        return symmetric_root(self.covariance)

    @cached_property
    def trace(self) -> float:
        """The sum of the variances."""
        return float(np.trace(self.covariance))


def summarise(features: Features) -> Reference:
    """Return the statistics of a set.

    Raises:
        DataError: it has one picture.
    """
    if len(features) < 2:
        raise DataError("A reference set needs at least two pictures to have a covariance; one is given.")
    mean = features.double.mean(0)
    centred = features.double - mean
    covariance = centred.T @ centred / (len(features) - 1)
    return Reference(mean, covariance, len(features), features.extractor, features.fingerprint, features.content)


def save_reference(reference: Reference, path: Path) -> Path:
    """Write the statistics to a safetensors file: whole or not at all.

    Raises:
        ArtifactError: the place cannot be written.
    """
    from safetensors.numpy import save_file

    metadata = {
        "format": FORMAT,
        "pictures": str(reference.pictures),
        "extractor": reference.extractor,
        "fingerprint": reference.fingerprint,
        "content": reference.content,
    }
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"mean": reference.mean, "covariance": reference.covariance}, unfinished, metadata=metadata)
        os.replace(unfinished, path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def load_reference(path: Path) -> Reference:
    """Read what `save_reference` wrote.

    Raises:
        ArtifactError: there is no such file, or it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = dict(file.metadata() or {})
            if about.get("format") != FORMAT:
                raise ArtifactError(f"{path}: not a file of reference statistics (format: {about.get('format')})")
            mean, covariance = file.get_tensor("mean"), file.get_tensor("covariance")
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a safetensors file: {error}") from None
    return Reference(
        mean, covariance, int(about["pictures"]), about["extractor"], about["fingerprint"], about["content"]
    )
