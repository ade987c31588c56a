"""Intervals by leaving out groups of pictures: one way for every metric, and for differences of metrics.

A metric is a function of a set of pictures. Leave out one group of them at a time and see how much the figure moves:
the delete-a-group jackknife. Pictures of one prompt resemble each other, so a prompt's pictures are left out together.
It needs neither a formula for each metric nor pictures drawn twice, which is what makes the bootstrap of a Frechet
distance or of nearest neighbours wrong: a repeated picture is its own neighbour at distance zero, and narrows the
covariance.

What an interval covers: other pictures from the same model, for other noise and, where pictures are grouped by prompt,
for other prompts of the same kind. The reference set is kept as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError

GROUPS = 20
"""Groups that are left out in turn, at most: an interval is then 7 % wider than with infinitely many."""

NEARLY_NORMAL = 10_000
"""Degrees of freedom from which on Student's t is taken for the normal distribution; the third decimal is the same."""


@dataclass(frozen=True)
class Interval:
    """A two-sided interval, in the metric's unit."""

    low: float
    high: float
    level: float = 0.95
    """Share of repetitions that it is meant to cover."""


def group(count: int, clusters: Sequence[Hashable] | None = None) -> NDArray[np.int64]:
    """Return each picture's group, [N], numbered from 0; the same for the same arguments, so that sets can be paired.

    Args:
        count: pictures, N.
        clusters: what may not be torn apart, one a picture: its prompt, for instance. Clusters are dealt to at most
            `GROUPS` groups in the order of first appearance. Without clusters, and where all pictures share one, single
            pictures are: intervals then cover other noise for that prompt.

    Raises:
        DataError: `clusters` has another length.
    """
    if clusters is not None and len(clusters) != count:
        raise DataError(f"{count} pictures need as many cluster labels; given: {len(clusters)}.")
    if clusters is None or len(set(clusters)) == 1:
        return np.arange(count) % GROUPS
    order = {label: place % GROUPS for place, label in enumerate(dict.fromkeys(clusters))}
    return np.array([order[label] for label in clusters], dtype=np.int64)


@dataclass(frozen=True)
class Jackknife:
    """A metric's value on all pictures and on all but a group, for every group."""

    value: float
    left_out: tuple[float, ...]
    """The values without group 0, 1, ..."""
    sizes: tuple[int, ...]
    """Pictures in each group; empty groups do not occur."""

    @property
    def pseudo_values(self) -> NDArray[np.float64]:
        """What each group adds: h value - (h - 1) left_out, h = n / size (Busing, Meijer and van der Leeden 1999)."""
        shares = sum(self.sizes) / np.array(self.sizes, dtype=np.float64)
        return shares * self.value - (shares - 1) * np.array(self.left_out)

    @property
    def corrected(self) -> float:
        """The value without its bias of order 1/n (Quenouille 1956; for unequal groups Busing et al. 1999)."""
        kept = 1 - np.array(self.sizes, dtype=np.float64) / sum(self.sizes)
        return len(self.sizes) * self.value - float((kept * np.array(self.left_out)).sum())

    @property
    def variance(self) -> float:
        """The estimated variance of the value (Tukey 1958; for unequal groups Busing et al. 1999); NaN of one group."""
        if len(self.sizes) < 2:
            return math.nan
        shares = sum(self.sizes) / np.array(self.sizes, dtype=np.float64)
        return float(((self.pseudo_values - self.corrected) ** 2 / (shares - 1)).mean())

    def interval(self, around: float | None = None, level: float = 0.95) -> Interval | None:
        """Return Student's interval with (groups - 1) degrees of freedom.

        Args:
            around: its middle; the value by default.
            level: see `Interval`.

        Returns:
            None with fewer than three groups, and where no group moves the value: a variance cannot be seen then.
        """
        freedom = len(self.sizes) - 1
        # Variation below the rounding of the value itself says nothing about pictures.
        if freedom < 2 or self.variance <= (1e-12 * max(1.0, abs(self.value))) ** 2:
            return None
        middle = self.value if around is None else around
        half = student_quantile(0.5 + level / 2, freedom) * math.sqrt(self.variance)
        return Interval(middle - half, middle + half, level)


def jackknife(statistic: Callable[[NDArray[np.bool_]], float], groups: NDArray[np.int64]) -> Jackknife:
    """Evaluate a statistic on all pictures and without each group.

    Args:
        statistic: takes a mask [N] of the pictures to use, at least one group's worth fewer than all.
        groups: from `group`.
    """
    sizes = np.bincount(groups)
    value = statistic(np.ones(len(groups), dtype=bool))
    if len(sizes) < 2:
        return Jackknife(value, (value,), (len(groups),))
    left_out = tuple(statistic(groups != number) for number in range(len(sizes)))
    return Jackknife(value, left_out, tuple(int(size) for size in sizes))


def of_mean(values: NDArray, groups: NDArray[np.int64]) -> Jackknife:
    """Return the jackknife of a mean of one number a picture, [N], without evaluating it again for every group."""
    values = np.asarray(values, dtype=np.float64)
    sizes, sums = np.bincount(groups), np.bincount(groups, weights=values)
    value = float(values.mean())
    if len(sizes) < 2:
        return Jackknife(value, (value,), (len(values),))
    left_out = (values.sum() - sums) / (len(values) - sizes)
    return Jackknife(value, tuple(map(float, left_out)), tuple(map(int, sizes)))


def wilson(share: float, count: float, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion, which does not collapse at 0 and 1 (Wilson 1927).

    Args:
        share: the observed proportion, in [0, 1].
        count: independent trials behind it; fewer than the pictures where those of a prompt resemble each other.
        level: see `Interval`.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    # At 0 and 1 one end is exact, but for the rounding of this difference.
    low, high = (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)
    return Interval(max(0.0, low), min(1.0, high), level)


def of_share(found: Jackknife, independent: int, level: float = 0.95) -> Interval:
    """Return Wilson's interval with as many trials as would scatter as the groups do.

    Args:
        found: the jackknife of a mean of zeros and ones.
        independent: clusters, or pictures where there are none: the trials to assume at 0 and at 1, where nothing
            scatters.
        level: see `Interval`.
    """
    share, pictures = found.value, sum(found.sizes)
    if not found.variance > 0 or not 0 < share < 1:
        return wilson(share, independent, level)
    return wilson(share, min(pictures, max(1.0, share * (1 - share) / found.variance)), level)


@lru_cache(maxsize=64)
def student_quantile(probability: float, freedom: float) -> float:
    """Return the quantile of Student's t at a probability in [0.5, 1), for 1 or more degrees of freedom, also infinite.

    With t = sqrt(freedom) tan(angle), the density of the angle is proportional to cos(angle)^(freedom - 1).
    """
    if freedom > NEARLY_NORMAL:
        return NormalDist().inv_cdf(probability)
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    angle = np.interp((probability - 0.5) * 2, below / below[-1], angles)
    return math.sqrt(freedom) * math.tan(float(angle))
