"""How many seeds would show a difference, and what difference the seeds at hand would show."""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats
from scipy.optimize import brentq

from inlay.errors import ConfigError
from inlay.study.statistics.effects import Bounds

NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)
RARE = 1e-13
"""Probability of what the integral over a standard deviation leaves out on either side."""
MOST = 100_000
"""Seeds beyond which nobody would go."""


def pair_power(difference: float, deviation: float, seeds: int, comparisons: int = 1, alpha: float = 0.05) -> float:
    """Return the probability that a two-sided t test of two cells finds their difference.

    Args:
        difference: between the true means, in the metric's unit.
        deviation: standard deviation of one cell over its seeds, above 0, same unit.
        seeds: of each of the two cells, 2 or more.
        comparisons: of the family among which errors are shared (Bonferroni).
        alpha: the family's rate of false alarms.
    """
    freedom = 2 * seeds - 2
    critical = float(stats.t.isf(alpha / comparisons / 2, freedom))
    noncentrality = abs(difference) / deviation * math.sqrt(seeds / 2)
    return _beyond(critical, freedom, noncentrality)


def _beyond(critical: float, freedom: int, noncentrality: float) -> float:
    """Return P(|T| > critical) of T = (Z + noncentrality) / S, Z standard normal, S^2 chi-squared over its freedom.

    The mean over S of the normal tails beyond critical * S. The tail on the wrong side counts as found, as is usual.
    scipy's noncentral t is not a number where both the critical value and the noncentrality are large, as they are for
    two or three seeds and many pairs.
    """
    ends = np.sqrt([stats.chi2.ppf(RARE, freedom) / freedom, stats.chi2.isf(RARE, freedom) / freedom])
    # Between them the tail falls from 1 to 0 about this point, as fast as a normal curve of width 1 / critical.
    falls = noncentrality / critical + np.array([-8, 0, 8]) / critical
    cuts = np.unique(np.concatenate([ends, falls.clip(*ends)]))
    middles, halves = (cuts[1:] + cuts[:-1]) / 2, (cuts[1:] - cuts[:-1]) / 2
    s = (middles[:, None] + halves[:, None] * NODES).ravel()
    weights = (halves[:, None] * WEIGHTS).ravel() * 2 * freedom * s * stats.chi2.pdf(freedom * s**2, freedom)
    tails = special.ndtr(noncentrality - critical * s) + special.ndtr(-noncentrality - critical * s)
    return float(min(1.0, (weights * tails).sum()))


def seeds_needed(
    difference: float, deviation: float, power: float = 0.8, comparisons: int = 1, alpha: float = 0.05
) -> int | None:
    """Return the fewest seeds a cell with which `pair_power` reaches a power; None beyond `MOST`.

    Raises:
        ConfigError: the difference or the deviation is not above 0.
    """
    if not difference or not deviation > 0:
        raise ConfigError(f"difference {difference} and deviation {deviation} must be other than 0")
    high = 2
    while pair_power(difference, deviation, high, comparisons, alpha) < power:
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        enough = middle >= 2 and pair_power(difference, deviation, middle, comparisons, alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return max(high, 2)


def detectable(
    deviation: float, seeds: int, power: float = 0.8, comparisons: int = 1, alpha: float = 0.05
) -> float | None:
    """Return the smallest difference that `seeds` a cell would show with a power; None with fewer than two."""
    if seeds < 2 or not deviation > 0:
        return None

    def lacking(difference: float) -> float:
        return pair_power(difference, deviation, seeds, comparisons, alpha) - power

    top = deviation
    while lacking(top) < 0:
        top *= 2
    return float(brentq(lacking, 0.0, top))  # type: ignore[arg-type]


def anova_power(effect: float, term_freedom: int, error_freedom: int, count: int, alpha: float = 0.05) -> float:
    """Return the probability that an F test finds a term.

    Args:
        effect: Cohen's f: the standard deviation of the levels' true means over that of the errors.
        term_freedom: degrees of freedom of the term.
        error_freedom: of the error.
        count: observations, N.
        alpha: rate of false alarms.
    """
    critical = stats.f.isf(alpha, term_freedom, error_freedom)
    return float(stats.ncf.sf(critical, term_freedom, error_freedom, effect**2 * count))


def deviation_bounds(mean_square: float, freedom: int, level: float = 0.95) -> Bounds:
    """Return the interval of a standard deviation from its error mean square (chi-squared)."""
    tail = (1 - level) / 2
    return Bounds(
        math.sqrt(mean_square * freedom / stats.chi2.isf(tail, freedom)),
        math.sqrt(mean_square * freedom / stats.chi2.ppf(tail, freedom)),
        level,
    )
