"""Statistics of a reference set: computed once, saved, and used only with features of the same extractor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inlay.errors import ArtifactError, DataError
from inlay.files import read_arrays, write_arrays
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

    def __len__(self) -> int:
        return self.pictures

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
    metadata = {
        "format": FORMAT,
        "pictures": str(reference.pictures),
        "extractor": reference.extractor,
        "fingerprint": reference.fingerprint,
        "content": reference.content,
    }
    return write_arrays(path, {"mean": reference.mean, "covariance": reference.covariance}, metadata)


def load_reference(path: Path) -> Reference:
    """Read what `save_reference` wrote.

    Raises:
        ArtifactError: there is no such file, or it holds something else.
    """
    arrays, about = read_arrays(path)
    if about.get("format") != FORMAT:
        raise ArtifactError(f"{path}: not a file of reference statistics (format: {about.get('format')})")
    return Reference(
        arrays["mean"],
        arrays["covariance"],
        int(about["pictures"]),
        about["extractor"],
        about["fingerprint"],
        about["content"],
    )
