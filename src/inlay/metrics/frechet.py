"""Frechet distance between Gaussians fitted to two sets of features, in float64.

Name the result after its extractor, "FD-<extractor>"; "FID" means the features of one particular Inception network.
The estimate is biased upwards at small n: compare only sets of equal n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError


def frechet_distance(first: NDArray, second: NDArray) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017, equation 6).

    Args:
        first: features [N, D], N >= 2.
        second: features [M, D], M >= 2.

    Returns:
        The squared Frechet distance of the fitted Gaussians, with covariances divided by N - 1 and M - 1; at least 0.

    Raises:
        DataError: a set has fewer than two rows, the widths differ, or a feature is not finite.
    """
    sets = [np.asarray(features, dtype=np.float64) for features in (first, second)]
    for features in sets:
        if features.ndim != 2 or len(features) < 2:
            raise DataError(f"A Frechet distance needs features [N, D] with N >= 2; given: shape {features.shape}.")
        if not np.isfinite(features).all():
            raise DataError("A Frechet distance needs finite features; given: some that are NaN or infinite.")
    if sets[0].shape[1] != sets[1].shape[1]:
        raise DataError(f"Features of {sets[0].shape[1]} and of {sets[1].shape[1]} numbers cannot be compared.")
    means = [features.mean(0) for features in sets]
    centred = [(features - mean) / np.sqrt(len(features) - 1) for features, mean in zip(sets, means, strict=True)]
    spread = sum(float((rows**2).sum()) for rows in centred)
    distance = float(((means[0] - means[1]) ** 2).sum()) + spread - 2 * _overlap(*centred)
    return max(0.0, distance)


def _overlap(one: NDArray, two: NDArray) -> float:
    """Return tr((S1 S2)^(1/2)) of the covariances S = X' X of scaled, centred features X."""
    if min(len(one), len(two)) < one.shape[1]:
        # Few rows: the singular values of X Y' are the roots of the eigenvalues of S1 S2, without forming either.
        return float(np.linalg.svd(one @ two.T, compute_uv=False).sum())
    values, vectors = np.linalg.eigh(one.T @ one)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    inner = root @ (two.T @ two) @ root
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(inner), 0.0)).sum())
