"""Sets of features for tests."""

from collections.abc import Hashable, Sequence

import numpy as np

from inlay.metrics.measure import Features


def normal(
    count: int,
    width: int = 6,
    seed: int = 0,
    shift: float = 0.0,
    clusters: Sequence[Hashable] | None = None,
    pairing: str = "",
    extractor: str = "tower",
) -> Features:
    """Return standard normal features around (shift, ..., shift)."""
    rows = np.random.default_rng(seed).normal(size=(count, width)) + shift
    return Features(rows, extractor, f"{extractor}'s weights", None if clusters is None else tuple(clusters), pairing)


def of(rows: np.ndarray, clusters: Sequence[Hashable] | None = None, pairing: str = "") -> Features:
    """Return features with the given rows."""
    return Features(rows, "tower", "tower's weights", None if clusters is None else tuple(clusters), pairing)
