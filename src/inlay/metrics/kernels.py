"""Kernel distances, unbiased: the choice where pictures are few. A value below zero means "no difference to be seen".

The squared maximum mean discrepancy (Gretton et al. 2012, equation 3: the U-statistic, which leaves out each picture's
likeness to itself) under two kernels: KID's polynomial and CMMD's Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError
from inlay.metrics.frechet import INCEPTION
from inlay.metrics.intervals import Jackknife
from inlay.metrics.measure import Features, Measure, measured, same_extractor

Kernel = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""From features [N, D] and [M, D] to likenesses [N, M]."""

BLOCK = 2048
"""Rows of a kernel matrix that are in memory at once."""
CMMD_WIDTH = 10.0
"""Width sigma of CMMD's Gaussian (Jayasumana et al. 2024, section 5), for features of length 1."""
CMMD_SCALE = 1000.0
"""What CMMD multiplies the squared discrepancy with (the same)."""
CMMD_EXTRACTOR = "clip:clip-vit-large-patch14-336"
"""The extractor whose distance is called CMMD."""


def polynomial(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (x . y / D + 1)^3, the kernel of KID (Binkowski et al. 2018, section 4)."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def gaussian(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(-|x - y|^2 / (2 sigma^2)), the kernel of CMMD, for features of any length."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None, :] - 2 * first @ second.T
    return np.exp(-np.maximum(squares, 0.0) / (2 * CMMD_WIDTH**2))


def kid(generated: Features, reference: Features) -> Measure:
    """Return the kernel distance of Binkowski et al. 2018 over all pairs of pictures at once.

    The publication averages over random subsets to save time, which only adds scatter; `kid_subsets` does it as
    published. The name is KID on Inception features, else KD-<extractor>.

    Raises:
        DataError: the extractors differ, or a set has fewer than two pictures.
    """
    label = "KID" if generated.extractor == INCEPTION else f"KD-{generated.extractor}"
    found = _leave_out(generated, generated.double, reference, reference.double, polynomial, 1.0)
    return _measure(label, found, generated, reference)


def cmmd(generated: Features, reference: Features) -> Measure:
    """Return the discrepancy of Jayasumana et al. 2024 between directions of CLIP features, times 1000, unbiased.

    The authors' program counts each picture's likeness to itself, which adds 1000 (1 - mean likeness) / N for either
    set; this one does not, and so has no bias. The name is CMMD for their CLIP, else CMMD-<extractor>.

    Raises:
        DataError: the extractors differ, a set has fewer than two pictures, or a feature is zero.
    """
    label = "CMMD" if generated.extractor == CMMD_EXTRACTOR else f"CMMD-{generated.extractor}"
    found = _leave_out(generated, generated.unit, reference, reference.unit, gaussian, CMMD_SCALE)
    return _measure(label, found, generated, reference)


def kid_subsets(
    generated: Features, reference: Features, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return mean and standard deviation of the kernel distance over random subsets, as published figures are made.

    The deviation is that of one subset. It is no interval of the mean: subsets share pictures.

    Args:
        generated: at least two pictures.
        reference: at least two pictures.
        subsets: how many are drawn.
        size: pictures of either side in a subset, drawn without replacement; at most what the smaller set has.
        seed: of the drawing.

    Raises:
        DataError: the extractors differ, or a set has fewer than two pictures.
    """
    _check(generated, reference)
    draw = np.random.default_rng(seed)
    size = min(size, len(generated), len(reference))
    values = []
    for _ in range(subsets):
        one, two = (rows[draw.choice(len(rows), size, replace=False)] for rows in (generated.double, reference.double))
        values.append(discrepancy(one, two, polynomial))
    return float(np.mean(values)), float(np.std(values))


def discrepancy(first: NDArray[np.float64], second: NDArray[np.float64], kernel: Kernel) -> float:
    """Return the unbiased squared discrepancy of features [N, D] and [M, D] (Gretton et al. 2012, equation 3)."""
    one, two = kernel(first, first), kernel(second, second)
    return _combine(
        one.sum() - np.trace(one), len(first), two.sum() - np.trace(two), len(second), kernel(first, second).sum()
    )


def same_distribution(
    generated: Features, reference: Features, kernel: Kernel = polynomial, permutations: int = 999, seed: int = 0
) -> float:
    """Return the probability that sets of one distribution would differ as much as these: a permutation test.

    Labels are shuffled and the discrepancy computed anew (Gretton et al. 2012, section 5): exact at any number of
    pictures if they are independent. Memory is 8 (N + M)^2 bytes.

    Raises:
        DataError: the extractors differ, or a set has fewer than two pictures.
    """
    _check(generated, reference)
    count, others = len(generated), len(reference)
    rows = np.concatenate([generated.double, reference.double])
    likeness = kernel(rows, rows)
    np.fill_diagonal(likeness, 0.0)
    total = likeness.sum()
    draw = np.random.default_rng(seed)
    marks = np.zeros((permutations + 1, count + others))
    marks[0, :count] = 1.0
    for mark in marks[1:]:
        mark[draw.permutation(count + others)[:count]] = 1.0
    reached = marks @ likeness
    within = (reached * marks).sum(1)
    across = reached.sum(1) - within
    values = _combine(within, count, total - within - 2 * across, others, across)
    # Relabelled values that equal the observed one up to rounding count as reaching it.
    slack = 1e-12 * abs(total) / len(rows) ** 2
    return float((values[1:] >= values[0] - slack).sum() + 1) / (permutations + 1)


def _combine(within, count, within_others, others, across):
    """Return the U-statistic from sums of the kernel over ordered pairs of different pictures."""
    return within / (count * (count - 1)) + within_others / (others * (others - 1)) - 2 * across / (count * others)


def _check(generated: Features, reference: Features) -> None:
    same_extractor(generated, reference)
    if min(len(generated), len(reference)) < 2:
        raise DataError(
            f"A kernel distance needs two pictures of either side; given: {len(generated)} and {len(reference)}."
        )


def _leave_out(
    generated: Features,
    rows: NDArray[np.float64],
    reference: Features,
    others: NDArray[np.float64],
    kernel: Kernel,
    scale: float,
) -> Jackknife:
    """Return scale times the discrepancy of rows [N, D] from others [M, D], whole and without each group of rows."""
    _check(generated, reference)
    member = np.eye(int(generated.groups.max()) + 1)[generated.groups]
    sizes = member.sum(0)
    between = np.zeros((len(sizes), len(sizes)))
    across = np.zeros(len(sizes))
    for begin in range(0, len(rows), BLOCK):
        part = slice(begin, begin + BLOCK)
        likeness = kernel(rows[part], rows)
        np.fill_diagonal(likeness[:, begin:], 0.0)
        between += member[part].T @ (likeness @ member)
        across += member[part].T @ kernel(rows[part], others).sum(1)
    beyond = 0.0
    for begin in range(0, len(others), BLOCK):
        likeness = kernel(others[begin : begin + BLOCK], others)
        np.fill_diagonal(likeness[:, begin:], 0.0)
        beyond += float(likeness.sum())

    count, rest = len(rows), len(others)
    value = scale * _combine(between.sum(), count, beyond, rest, across.sum())
    remaining = count - sizes
    if len(sizes) < 2 or remaining.min() < 2:
        return Jackknife(float(value), (float(value),), (count,))
    within = between.sum() - 2 * between.sum(1) + np.diag(between)
    left_out = scale * _combine(within, remaining, beyond, rest, across.sum() - across)
    return Jackknife(float(value), tuple(map(float, left_out)), tuple(int(size) for size in sizes))


def _measure(label: str, found: Jackknife, generated: Features, reference: Features) -> Measure:
    interval = found.interval()
    few = "" if interval else f"No interval: {generated.independent} independent pictures or prompts are too few."
    return measured(label, found, interval, generated, reference, few)
