"""Frechet distance between Gaussians fitted to two sets of features, in float64.

Name the result after its extractor, "FD-<extractor>"; "FID" means the features of one particular Inception network.
The estimate is biased upwards at small n: compare only sets of equal n, see `infinity` for what lies beneath, and take
`kernels` where pictures are few.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError
from inlay.metrics.intervals import jackknife
from inlay.metrics.measure import Features, Measure, measured, same_extractor

if TYPE_CHECKING:
    from inlay.metrics.reference import Reference

INCEPTION = "inception"
"""Name of the extractor whose Frechet distance is called FID."""
PARTS = (1, 2, 4, 8)
"""Into how many equal parts `infinity` cuts the pictures."""


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


def frechet(generated: Features, reference: Reference) -> Measure:
    """Return the Frechet distance of a set from a reference, with its jackknife interval.

    The interval says where the distance of as many other pictures from the same model would lie; the bias of few
    pictures is in it as it is in the value. The note says when that bias matters.

    Args:
        generated: two or more pictures.
        reference: statistics of the reference set, made by the same extractor.

    Raises:
        DataError: the extractors differ, or one picture is given.
    """
    same_extractor(generated, reference)
    rows = generated.double
    found = jackknife(lambda mask: _from(rows[mask], reference), generated.groups)
    warning = _warning(found.value, found.corrected, len(generated), reference)
    return measured(name(generated.extractor), found, found.interval(), generated, reference, warning)


def infinity(generated: Features, reference: Reference) -> Measure:
    """Return the Frechet distance extrapolated to infinitely many generated pictures (Chong and Forsyth 2020).

    The bias falls as 1/n (their section 3), so the intercept of a line through distances at several n has none. Chong
    and Forsyth draw subsets at random; here a size of n/k is the mean over k parts that together hold every picture
    once. What single pictures contribute is then the same at every size, so the line sees the bias alone, and the
    intercept scatters as the distance at full size does: its interval is the jackknife's of that.

    Args:
        generated: as many pictures as :func:`enough` says: an eighth of them exceeds the number of features by half.
        reference: statistics of the reference set. Its own sampling error is not removed.

    Raises:
        DataError: the extractors differ, or the pictures are too few.
    """
    same_extractor(generated, reference)
    count, width = generated.values.shape
    needed = enough(width)
    if count < needed:
        raise DataError(
            f"{name(generated.extractor)} cannot be extrapolated from {count} pictures: with {width} features at least "
            f"{needed} are needed. Draw more, or use a kernel distance, which has no such bias."
        )
    rows = generated.double
    # Dealt like cards, so that pictures that were drawn one after another do not end up in one part.
    means = [np.mean([_from(rows[part::parts], reference) for part in range(parts)]) for parts in PARTS]
    _, intercept = np.polyfit(np.array(PARTS) / count, means, 1)
    found = jackknife(lambda mask: _from(rows[mask], reference), generated.groups)
    interval = found.interval(around=float(intercept))
    plain = measured(f"{name(generated.extractor)}-infinity", found, interval, generated, reference)
    return replace(plain, value=float(intercept))


def enough(width: int) -> int:
    """Return how many pictures :func:`infinity` needs at least with so many features."""
    return PARTS[-1] * (width + width // 2)


def name(extractor: str) -> str:
    """Return what the Frechet distance on an extractor's features is called."""
    return "FID" if extractor == INCEPTION else f"FD-{extractor}"


def _from(rows: NDArray[np.float64], reference: Reference) -> float:
    """Return the Frechet distance of features [N, D] from a reference whose covariance has a known root."""
    if len(rows) < 2:
        raise DataError("A Frechet distance needs at least two pictures in every group that is left; one is given.")
    mean = rows.mean(0)
    centred = (rows - mean) / np.sqrt(len(rows) - 1)
    # tr((S1 S2)^(1/2)) is the sum of the singular values of X R for S1 = X'X and S2 = R R; their squares are the
    # eigenvalues of the smaller of (X R)(X R)' and (X R)'(X R).
    product = centred @ reference.root
    inner = product @ product.T if len(rows) < rows.shape[1] else product.T @ product
    distance = float(((mean - reference.mean) ** 2).sum()) + float((centred**2).sum()) + reference.trace
    return max(0.0, distance - 2 * _sum_of_roots(inner))


def _warning(value: float, corrected: float, count: int, reference: Reference) -> str:
    width = len(reference.mean)
    few = min(count, reference.pictures)
    if few <= width:
        return (
            f"{few} pictures do not determine a covariance of {width} features, and most of this distance may be due "
            "to their number: use a kernel distance, which is unbiased for small sets."
        )
    bias = value - corrected
    if bias > 0.1 * value:
        return (
            f"About {bias:.3g} of this distance is there only because {count} pictures are few for {width} features: "
            "compare it with figures of equally many pictures only, or use a kernel distance."
        )
    return ""


def _overlap(one: NDArray, two: NDArray) -> float:
    """Return tr((S1 S2)^(1/2)) of the covariances S = X' X of scaled, centred features X."""
    if min(len(one), len(two)) < one.shape[1]:
        # Few rows: the singular values of X Y' are the roots of the eigenvalues of S1 S2, without forming either.
        return float(np.linalg.svd(one @ two.T, compute_uv=False).sum())
    product = two @ symmetric_root(one.T @ one)
    return _sum_of_roots(product.T @ product)


def symmetric_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the symmetric root of a positive semidefinite matrix [D, D], which may lack rank."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(_without_noise(values))) @ vectors.T


def _sum_of_roots(symmetric: NDArray[np.float64]) -> float:
    return float(np.sqrt(_without_noise(np.linalg.eigvalsh(symmetric))).sum())


def _without_noise(eigenvalues: NDArray) -> NDArray:
    """Set to zero what rounding leaves of eigenvalues that are zero: their roots would add up."""
    noise = len(eigenvalues) * np.finfo(np.float64).eps * max(float(eigenvalues[-1]), 0.0)
    return np.where(eigenvalues > noise, eigenvalues, 0.0)
