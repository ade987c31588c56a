"""Means of the levels of a factor, and all differences between them, with intervals that hold together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, stats

from inlay.errors import ConfigError
from inlay.study.statistics.design import TOLERANCE, Term, fit, matrix, term_columns
from inlay.study.statistics.effects import Bounds
from inlay.study.statistics.sample import Sample
from inlay.study.table import Level


@dataclass(frozen=True)
class Mean:
    """What a level gives, averaged over the levels of all other factors with equal weight."""

    level: Level
    count: int
    """Observations at this level."""
    value: float | None
    """None where empty cells leave it undetermined."""
    bounds: Bounds | None
    """Of this mean alone (Student)."""


@dataclass(frozen=True)
class Difference:
    """A comparison of two levels."""

    first: Level
    second: Level
    value: float | None
    """Mean of the first less that of the second; None where empty cells leave it undetermined."""
    bounds: Bounds | None
    """Holds together with those of all other pairs."""
    p: float | None
    """Adjusted for the number of pairs."""


@lru_cache(maxsize=256)
def _range_quantile(level: float, count: int, freedom: float) -> float:
    """Return the quantile of Tukey's studentized range over sqrt(2): scipy takes 30 ms for each."""
    return float(stats.studentized_range.ppf(level, count, freedom)) / math.sqrt(2)


SINGLY = 60
"""Pairs up to which each p-value is integrated by itself."""


def _range_tails(distances: Sequence[float], count: int, freedom: float) -> list[float]:
    """Return p of differences in standard errors; where there are many, interpolated to about four digits."""
    ranges = math.sqrt(2) * np.asarray(distances)
    if len(ranges) <= SINGLY:
        return [min(1.0, float(stats.studentized_range.sf(value, count, freedom))) for value in ranges]
    grid = np.linspace(0, float(ranges.max()), SINGLY)
    logarithms = np.log(np.maximum(stats.studentized_range.sf(grid, count, freedom), 1e-14))
    found = np.exp(interpolate.PchipInterpolator(grid, logarithms)(ranges))
    return np.minimum(found, 1.0).tolist()


ROUNDING = 1e-12
"""Share of the largest observation up to which an estimate is rounding: runs that are all 0 have the mean 0."""


class _Model:
    """A fitted linear model that answers for combinations of its coefficients."""

    def __init__(self, sample: Sample, terms: Sequence[Term]) -> None:
        columns = matrix(sample, terms)
        left, singular, right = np.linalg.svd(columns, full_matrices=False)
        kept = singular > TOLERANCE * singular[0]
        self.directions = right[kept]
        self.inverse = right[kept].T / singular[kept]
        self.coefficients = self.inverse @ (left[:, kept].T @ sample.response)
        error = fit(sample, columns)
        self.freedom, self.variance = error.freedom, error.mean_square
        self.rounding = ROUNDING * float(np.abs(sample.response).max())
        if self.freedom < 1:
            raise ConfigError(
                f"{len(sample)} observations leave no degrees of freedom for the error of {len(terms)} terms"
            )

    def evaluate(self, weights: NDArray[np.float64]) -> tuple[float, float] | None:
        """Return the value and standard error of a combination [P] of the coefficients; None if undetermined."""
        seen = weights @ self.directions.T
        if not np.allclose(seen @ self.directions, weights, atol=1e-7):
            return None
        value = float(weights @ self.coefficients)
        error = float(math.sqrt(self.variance) * np.linalg.norm(weights @ self.inverse))
        return 0.0 if abs(value) <= self.rounding else value, error


def _rows(sample: Sample, terms: Sequence[Term], factor: str) -> NDArray[np.float64]:
    """Return [levels, P]: the model's coefficients that each level's mean is made of.

    In sum coding all columns of other terms are 0 on average over the levels of their factors.
    """
    if (factor,) not in terms:
        raise ConfigError(f"the model has no main effect of {factor}")
    count = len(sample.levels[factor])
    widths = [term_columns(sample, term).shape[1] for term in terms]
    rows = np.zeros((count, 1 + sum(widths)))
    rows[:, 0] = 1
    start = 1 + sum(widths[: list(terms).index((factor,))])
    rows[:, start : start + count - 1] = np.vstack([np.eye(count - 1), -np.ones(count - 1)])
    return rows


def means(sample: Sample, terms: Sequence[Term], factor: str, level: float = 0.95) -> list[Mean]:
    """Return the marginal mean of each level of a factor of the model."""
    model = _Model(sample, terms)
    quantile = float(stats.t.ppf(0.5 + level / 2, model.freedom))
    found = []
    for code, row in enumerate(_rows(sample, terms, factor)):
        count = int((sample.codes[factor] == code).sum())
        known = model.evaluate(row)
        value, error = known if known else (None, None)
        bounds = None if value is None or error is None else Bounds(value - quantile * error, value + quantile * error)
        found.append(Mean(sample.levels[factor][code], count, value, bounds))
    return found


def tukey(sample: Sample, terms: Sequence[Term], factor: str, level: float = 0.95) -> list[Difference]:
    """Return all differences between a factor's levels by Tukey's honest significant difference.

    With unequal counts it is Tukey and Kramer's, which errs on the safe side (Hayter 1984); several factors: by the
    error of the whole model.

    Args:
        sample: with two or more levels of the factor.
        terms: of the model, the factor's main effect among them.
        factor: whose levels to compare.
        level: share of repetitions in which all intervals hold together.
    """
    model = _Model(sample, terms)
    rows, levels = _rows(sample, terms, factor), sample.levels[factor]
    quantile = _range_quantile(level, len(levels), model.freedom)
    pairs = list(combinations(range(len(levels)), 2))
    known = [model.evaluate(rows[first] - rows[second]) for first, second in pairs]
    distances = [abs(value) / error for value, error in (one for one in known if one is not None)]
    tails = iter(_range_tails(distances, len(levels), model.freedom))
    found = []
    for (first, second), one in zip(pairs, known, strict=True):
        if one is None:
            found.append(Difference(levels[first], levels[second], None, None, None))
            continue
        value, half = one[0], quantile * one[1]
        bounds = Bounds(value - half, value + half, level)
        found.append(Difference(levels[first], levels[second], value, bounds, next(tails)))
    return found


def games_howell(sample: Sample, factor: str, level: float | None = 0.95) -> list[Difference]:
    """Return all differences between a factor's levels without equal variances (Games and Howell 1976).

    Each pair by its own standard error and Welch's degrees of freedom; other factors are part of the scatter. Pairs
    with a level of one observation, or of no scatter, are undetermined.

    Args:
        sample: with two or more levels of the factor.
        factor: whose levels to compare.
        level: share of repetitions in which all intervals hold together; None for p-values alone, which is faster.
    """
    groups, levels = sample.groups(factor), sample.levels[factor]
    found = []
    for first, second in combinations(range(len(levels)), 2):
        one, other = groups[first], groups[second]
        value = float(one.mean() - other.mean())
        if min(len(one), len(other)) < 2 or one.var(ddof=1) + other.var(ddof=1) == 0:
            found.append(Difference(levels[first], levels[second], value, None, None))
            continue
        parts = np.array([one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)])
        error = math.sqrt(parts.sum())
        freedom = float(parts.sum() ** 2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(other) - 1)))
        p = float(stats.studentized_range.sf(math.sqrt(2) * abs(value) / error, len(levels), freedom))
        bounds = None
        if level is not None:
            half = _range_quantile(level, len(levels), freedom) * error
            bounds = Bounds(value - half, value + half, level)
        found.append(Difference(levels[first], levels[second], value, bounds, min(p, 1)))
    return found
