"""Effect sizes of an F test, with intervals by inversion of the noncentral F distribution.

The population value is the share of variance that a term explains among its own and the error's. Its sample value,
partial eta^2, lies above it on average; partial omega^2 estimates it nearly without bias. Intervals: Steiger, Beyond
the F test, Psychological Methods 9 (2004), 164-182: noncentralities at which the observed F is just not surprising.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats
from scipy.optimize import brentq

LARGE = 1e6
"""F times its degrees of freedom beyond which only the denominator counts."""


@dataclass(frozen=True)
class Bounds:
    """A two-sided confidence interval."""

    low: float
    high: float
    level: float = 0.95


def noncentrality(f: float, term_freedom: float, error_freedom: float, level: float = 0.95) -> Bounds:
    """Return the interval of the noncentrality parameter of an observed F; bounds are at least 0."""

    def solve(probability: float) -> float:
        # The distribution function falls as the noncentrality grows.
        if stats.f.cdf(f, term_freedom, error_freedom) <= probability:
            return 0.0
        if f * term_freedom > LARGE:
            # There the numerator hardly scatters, and scipy's distribution is not a number any more.
            return float(f * term_freedom / error_freedom * stats.chi2.isf(probability, error_freedom))
        top = max(1.0, 2 * f * term_freedom)
        while stats.ncf.cdf(f, term_freedom, error_freedom, top) > probability:
            top *= 2
        return float(
            brentq(lambda value: stats.ncf.cdf(f, term_freedom, error_freedom, value) - probability, 1e-12, top)  # type: ignore[arg-type]
        )

    tail = (1 - level) / 2
    return Bounds(solve(1 - tail), solve(tail), level)


def share_bounds(f: float, term_freedom: float, error_freedom: float, count: int, level: float = 0.95) -> Bounds:
    """Return the interval of the population's partial eta^2: noncentrality / (noncentrality + N) (Steiger 2004).

    Args:
        f: observed.
        term_freedom: degrees of freedom of the term.
        error_freedom: of the error.
        count: observations, N.
        level: share of repetitions that the interval is meant to cover.
    """
    found = noncentrality(f, term_freedom, error_freedom, level)
    return Bounds(found.low / (found.low + count), found.high / (found.high + count), level)


@dataclass(frozen=True)
class Effect:
    """How much of the variance a term explains."""

    eta_squared: float
    """Its share of the total sum of squares."""
    partial_eta_squared: float
    """Its share of its own and the error's sum of squares."""
    omega_squared: float
    """Its share of the total variance, corrected for what chance alone would explain; can be below 0."""
    partial_omega_squared: float
    """The same, of its own and the error's variance."""
    share: Bounds
    """Of the population's partial value."""
    total_share: Bounds
    """Of the population's share of the total, all else counted as error: exact in a one-way design, else wide."""


def effect_size(
    term_square: float, term_freedom: int, error_square: float, error_freedom: int, total_square: float, count: int
) -> Effect:
    """Return the effect sizes of a term.

    Args:
        term_square: sum of squares of the term.
        term_freedom: its degrees of freedom, 1 or more.
        error_square: sum of squares of the error, above 0.
        error_freedom: its degrees of freedom, 1 or more.
        total_square: sum of squares about the mean.
        count: observations, N.
    """
    error_mean = error_square / error_freedom
    f = term_square / term_freedom / error_mean
    rest, rest_freedom = total_square - term_square, count - 1 - term_freedom
    if rest > 0 and rest_freedom > 0:
        overall = share_bounds(term_square / term_freedom / (rest / rest_freedom), term_freedom, rest_freedom, count)
    else:
        overall = Bounds(0.0, 1.0)
    # Omega^2: Hays 1963; partial: Keren and Lewis, Educational and Psychological Measurement 39 (1979), 119-128.
    return Effect(
        eta_squared=term_square / total_square,
        partial_eta_squared=term_square / (term_square + error_square),
        omega_squared=(term_square - term_freedom * error_mean) / (total_square + error_mean),
        partial_omega_squared=term_freedom * (f - 1) / (term_freedom * (f - 1) + count),
        share=share_bounds(f, term_freedom, error_freedom, count),
        total_share=overall,
    )
