"""Precision, recall, density, coverage: quality and variety apart, from nearest neighbours in feature space.

A set's manifold is the union of balls around its pictures, each as wide as the distance to the picture's k-th nearest
neighbour in the set. All four change with the number of pictures: compare equal numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError
from inlay.metrics.intervals import Interval, Jackknife, of_mean, of_share
from inlay.metrics.measure import Features, Measure, measured, same_extractor

BLOCK = 1024
"""Rows of a distance matrix that are in memory at once."""


def precision_recall(generated: Features, reference: Features, k: int = 3) -> tuple[Measure, Measure]:
    """Return the shares of either set that lie on the other's manifold (Kynkaanniemi et al. 2019, equations 1 and 2).

    Args:
        generated: more than k pictures.
        reference: more than k pictures.
        k: the neighbour that sets a ball's radius; 3 as published.

    Returns:
        Precision, the share of generated pictures that look real, and recall, the share of real ones within reach.

    Raises:
        DataError: the extractors differ, or a set has too few pictures.
    """
    _check(generated, reference, k)
    inside, _ = _inside(generated, reference, k)
    shares = of_mean(inside > 0, generated.groups)
    precision = _measure("precision", shares, of_share(shares, generated.independent), generated, reference)

    radii = _radii(generated.double, k, generated.groups)
    reached = np.zeros((len(radii), len(reference)), dtype=bool)
    for part in _blocks(len(reference)):
        squares = _squares(reference.double[part], generated.double)
        for row, radius in enumerate(radii):  # all pictures first, then without each group
            reached[row, part] = (squares <= radius).any(1)
    shares = _jackknife(reached.mean(1), generated)
    return precision, _measure("recall", shares, _clipped(shares, 1.0), generated, reference)


def density_coverage(generated: Features, reference: Features, k: int = 5) -> tuple[Measure, Measure]:
    """Return density and coverage, which no single far-off real picture can inflate (Naeem et al. 2020, section 3.2).

    Args:
        generated: more than k pictures.
        reference: more than k pictures.
        k: the neighbour that sets a ball's radius; 5 as published.

    Returns:
        Density, how many real balls a generated picture lies in over k: about 1 for a perfect model, more where it
        draws only typical pictures. Coverage, the share of real pictures with a generated one in their ball; the note
        says what a perfect model would reach.

    Raises:
        DataError: the extractors differ, or a set has too few pictures.
    """
    _check(generated, reference, k)
    inside, nearest = _inside(generated, reference, k)
    shares = of_mean(inside / k, generated.groups)
    density = _measure("density", shares, _clipped(shares, math.inf), generated, reference)

    rows = [nearest.min(1)] + [np.delete(nearest, group, 1).min(1) for group in range(nearest.shape[1])]
    shares = _jackknife(np.array([(row <= 1).mean() for row in rows]), generated)
    perfect = expected_coverage(len(generated), len(reference), k)
    note = f"With as many pictures a perfect model would cover {perfect:.3f}."
    return density, _measure("coverage", shares, _clipped(shares, 1.0), generated, reference, note)


def expected_coverage(generated: int, reference: int, k: int) -> float:
    """Return the coverage of pictures drawn from the reference's own distribution (Naeem et al. 2020, section 3.3).

    A ball is empty when the k nearest of all other pictures are all real.
    """
    return 1 - math.comb(reference - 1, k) / math.comb(reference + generated - 1, k)


def _check(generated: Features, reference: Features, k: int) -> None:
    same_extractor(generated, reference)
    largest = int(np.bincount(generated.groups).max())  # without a group there must still be k neighbours
    if min(len(generated) - largest, len(reference)) <= k:
        raise DataError(
            f"Nearest neighbours at k = {k} need more pictures of either side; given: {len(generated)} generated "
            f"(of which {largest} are left out at once) and {len(reference)} reference pictures. For sets this small "
            "use a kernel distance."
        )


def _squares(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None, :] - 2 * first @ second.T
    return np.maximum(squares, 0.0)


def _blocks(count: int) -> list[slice]:
    return [slice(begin, min(begin + BLOCK, count)) for begin in range(0, count, BLOCK)]


def _radii(rows: NDArray[np.float64], k: int, groups: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Return squared distances to the k-th neighbour, [1 + G, N]: among all, then without group 0, 1, ...

    A row that is left out itself has radius -1, which nothing is within.
    """
    # Alone, every row is of a group that is never left out.
    groups = np.full(len(rows), -1) if groups is None else groups
    leave_out = int(groups.max()) + 1
    radii = np.empty((1 + leave_out, len(rows)))
    listed = min(len(rows) - 1, 4 * k + 16)
    for part in _blocks(len(rows)):
        squares = _squares(rows[part], rows)
        squares[np.arange(len(squares)), np.arange(part.start, part.stop)] = np.inf
        nearest = np.argpartition(squares, listed - 1, axis=1)[:, :listed]
        near = np.take_along_axis(squares, nearest, 1)
        radii[0, part] = np.partition(near, k - 1, axis=1)[:, k - 1]
        for group in range(leave_out):
            kept = np.where(groups[nearest] == group, np.inf, near)
            radius = np.partition(kept, k - 1, axis=1)[:, k - 1]
            # Where most neighbours are of the group, the list is too short and the whole row is searched.
            short = np.flatnonzero(np.isinf(radius))
            if len(short):
                others = squares[np.ix_(short, groups != group)]
                radius[short] = np.partition(others, k - 1, axis=1)[:, k - 1]
            radii[1 + group, part] = np.where(groups[part] == group, -1.0, radius)
    return radii


def _inside(generated: Features, reference: Features, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the number of real balls that each generated picture is in, [N], and nearest distances.

    The latter, [M, G], are squared distances from each real picture to the nearest generated one of each group, in
    units of the squared radius of its ball.
    """
    radii = _radii(reference.double, k)[0]
    count = np.zeros(len(generated), dtype=np.int64)
    sizes = np.bincount(generated.groups)
    nearest = np.empty((len(reference), len(sizes)))
    for part in _blocks(len(reference)):
        squares = _squares(reference.double[part], generated.double)
        radius = radii[part][:, None]
        count += (squares <= radius).sum(0)
        for group in range(len(sizes)):
            closest = squares[:, generated.groups == group].min(1, keepdims=True)
            # Pictures that occur k times over have a ball of radius zero, which holds only their like.
            ratio = np.divide(closest, radius, out=np.where(closest > 0, np.inf, 0.0), where=radius > 0)
            nearest[part, group] = ratio[:, 0]
    return count, nearest


def _jackknife(values: NDArray[np.float64], generated: Features) -> Jackknife:
    """Take values on all pictures and without each group apart."""
    sizes = tuple(map(int, np.bincount(generated.groups)))
    return Jackknife(float(values[0]), tuple(map(float, values[1:])), sizes)


def _clipped(found: Jackknife, top: float) -> Interval | None:
    interval = found.interval()
    return interval and Interval(max(0.0, interval.low), min(top, interval.high), interval.level)


def _measure(
    metric: str, found: Jackknife, interval: Interval | None, generated: Features, reference: Features, note: str = ""
) -> Measure:
    if interval is None:
        note = f"No interval: leaving pictures out does not move it. {note}".strip()
    return measured(metric, found, interval, generated, reference, note)
