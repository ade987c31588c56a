"""Linear models of factors: columns with sum coding, least squares by rank, never by assumption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from inlay.errors import ConfigError
from inlay.study.statistics.sample import Sample

Term = tuple[str, ...]
"""The factors whose interaction it is; of one factor, a main effect."""
TOLERANCE = 1e-9
"""Singular values below this share of the largest count as 0."""


def name_of(term: Term) -> str:
    """Return a term as it is printed: `method × seed`."""
    return " × ".join(term)


def all_terms(factors: Sequence[str], order: int = 2) -> tuple[Term, ...]:
    """Return the main effects and interactions up to an order, lower orders first."""
    return tuple(term for size in range(1, order + 1) for term in combinations(factors, size))


def main_columns(sample: Sample, factor: str) -> NDArray[np.float64]:
    """Return [N, levels - 1]: 1 at the column's level, -1 at the last, 0 elsewhere (R's `contr.sum`)."""
    count = len(sample.levels[factor])
    coding = np.vstack([np.eye(count - 1), -np.ones(count - 1)])
    return coding[sample.codes[factor]]


def term_columns(sample: Sample, term: Term) -> NDArray[np.float64]:
    """Return the columns of a main effect or of an interaction: all products of its factors' columns."""
    columns = np.ones((len(sample), 1))
    for factor in term:
        if factor not in sample.codes:
            raise ConfigError(f"term {name_of(term)}: the sample has only the factors {', '.join(sample.factors)}")
        columns = (columns[:, :, None] * main_columns(sample, factor)[:, None, :]).reshape(len(sample), -1)
    return columns


def matrix(sample: Sample, terms: Iterable[Term]) -> NDArray[np.float64]:
    """Return the model matrix [N, 1 + columns] of an intercept and terms."""
    return np.hstack([np.ones((len(sample), 1)), *(term_columns(sample, term) for term in terms)])


def basis(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an orthonormal basis [N, rank] of the space that columns span."""
    left, singular, _ = np.linalg.svd(columns, full_matrices=False)
    rank = int((singular > TOLERANCE * singular[0]).sum()) if len(singular) and singular[0] > 0 else 0
    return left[:, :rank]


@dataclass(frozen=True, eq=False)
class Fit:
    """A least-squares fit."""

    rank: int
    """Independent columns, the intercept's among them."""
    fitted: NDArray[np.float64]
    """[N]"""
    residuals: NDArray[np.float64]
    """[N]"""

    @property
    def sum_of_squares(self) -> float:
        """Of the residuals."""
        return float(self.residuals @ self.residuals)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the residuals."""
        return len(self.residuals) - self.rank

    @property
    def mean_square(self) -> float:
        """The estimated error variance; NaN without degrees of freedom."""
        return self.sum_of_squares / self.freedom if self.freedom else float("nan")


def fit(sample: Sample, columns: NDArray[np.float64]) -> Fit:
    """Fit a sample's response by the columns [N, P] of a model."""
    space = basis(columns)
    fitted = space @ (space.T @ sample.response)
    return Fit(space.shape[1], fitted, sample.response - fitted)
