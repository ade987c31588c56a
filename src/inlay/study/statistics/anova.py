"""Analysis of variance with any number of factors, balanced or not, by comparison of nested models.

Formulas of a textbook hold where every combination of levels was measured equally often. Here a term is tested by the
sum of squares that the model loses without it, and its degrees of freedom are the ranks that it loses; an empty cell
costs rank and nothing else goes wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from inlay.errors import ConfigError
from inlay.study.statistics.design import Fit, Term, all_terms, fit, matrix, name_of
from inlay.study.statistics.effects import Effect, effect_size
from inlay.study.statistics.sample import Sample
from inlay.study.table import Level

Kind = Literal["II", "III"]
"""Type II: each term after all that do not contain it. Type III: each after all others, in sum coding."""


@dataclass(frozen=True)
class Test:
    """One line of a table of variance."""

    term: Term
    freedom: int
    """Degrees of freedom that it has in these data; 0 when they cannot tell it from others."""
    sum_of_squares: float
    f: float | None
    """None where it cannot be tested, see `note`."""
    p: float | None
    effect: Effect | None
    note: str = ""
    """Why it cannot be tested, or only in part."""

    __test__ = False  # pytest collects classes of this name

    @property
    def name(self) -> str:
        """As printed."""
        return name_of(self.term)


@dataclass(frozen=True, eq=False)
class Anova:
    """A table of variance."""

    kind: Kind
    sample: Sample
    terms: tuple[Term, ...]
    tests: tuple[Test, ...]
    error: Fit
    """Of the whole model."""
    total: float
    """Sum of squares about the mean."""
    exact: bool
    """Whether the model leaves nothing unexplained: there is no error to compare with."""
    missing: tuple[tuple[Term, tuple[tuple[Level, ...], ...]], ...]
    """For each tested interaction the combinations that were not measured."""

    @property
    def balanced(self) -> bool:
        """Whether every combination of all factors was measured equally often."""
        factors = sorted({factor for term in self.terms for factor in term})
        return not self.sample.missing(factors) and len(set(self.sample.cells(factors).values())) == 1

    def test(self, *term: str) -> Test:
        """Return the line of a term, its factors in any order."""
        for line in self.tests:
            if set(line.term) == set(term):
                return line
        raise ConfigError(f"no term {name_of(term)}; there are {', '.join(line.name for line in self.tests)}")


def contrast_models(
    sample: Sample, terms: Sequence[Term], term: Term, kind: Kind
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the model matrices with and without a term whose difference is the term's sum of squares."""
    if kind == "II":
        beside = [other for other in terms if not set(term) <= set(other)]
        return matrix(sample, [*beside, term]), matrix(sample, beside)
    return matrix(sample, terms), matrix(sample, [other for other in terms if other != term])


def anova(sample: Sample, terms: Sequence[Term] | None = None, kind: Kind = "II") -> Anova:
    """Return the table of variance of a sample.

    Args:
        sample: with two or more levels of every factor of a term.
        terms: of the model; by default all main effects and interactions of two factors.
        kind: of the sums of squares.

    Raises:
        ConfigError: a factor does not vary, or the model leaves no degrees of freedom for the error.
    """
    terms = tuple(terms) if terms is not None else all_terms(sample.factors)
    _check(sample, terms)
    whole = fit(sample, matrix(sample, terms))
    if whole.freedom < 1:
        raise ConfigError(
            f"{len(sample)} observations leave no degrees of freedom for the error beside "
            f"{', '.join(map(name_of, terms))}; leave out interactions, or measure more seeds"
        )
    total = float(((sample.response - sample.response.mean()) ** 2).sum())
    # Below the rounding of the response itself nothing can be said to vary.
    exact = whole.sum_of_squares <= 1e-20 * max(total, float(sample.response @ sample.response))
    tests = []
    for term in terms:
        nominal = int(np.prod([len(sample.levels[factor]) - 1 for factor in term]))
        larger, smaller = (fit(sample, columns) for columns in contrast_models(sample, terms, term, kind))
        freedom = larger.rank - smaller.rank
        square = max(0.0, smaller.sum_of_squares - larger.sum_of_squares)
        note = _note(sample, terms, term, kind, freedom, nominal)
        if exact:
            note = "the model fits exactly: there is no error to compare with"
        if freedom == 0 or exact or (kind == "III" and note):
            tests.append(Test(term, freedom, square, None, None, None, note))
            continue
        f = square / freedom / whole.mean_square
        effect = effect_size(square, freedom, whole.sum_of_squares, whole.freedom, total, len(sample))
        tests.append(Test(term, freedom, square, f, float(stats.f.sf(f, freedom, whole.freedom)), effect, note))
    gaps = tuple((term, tuple(sample.missing(term))) for term in terms if len(term) > 1 and sample.missing(term))
    return Anova(kind, sample, terms, tuple(tests), whole, total, exact, gaps)


def _check(sample: Sample, terms: Sequence[Term]) -> None:
    for factor in dict.fromkeys(factor for term in terms for factor in term):
        if factor not in sample.levels:
            raise ConfigError(f"no factor is called {factor!r}; there are {', '.join(sample.factors)}")
        if len(sample.levels[factor]) < 2:
            raise ConfigError(f"factor {factor} has only the level {sample.levels[factor][0]!r}; nothing to compare")


def _note(sample: Sample, terms: Sequence[Term], term: Term, kind: Kind, freedom: int, nominal: int) -> str:
    if freedom == 0:
        return "cannot be told from other terms in these data"
    above = [other for other in terms if set(term) < set(other) and sample.missing(other)]
    if kind == "III" and above:
        return f"type III means nothing where cells of {name_of(above[0])} are empty; see type II"
    if freedom < nominal:
        return f"{freedom} of {nominal} degrees of freedom: not all its levels occur together"
    return ""


def one_way(sample: Sample, factor: str) -> Test:
    """Return the test of one factor alone, all else in the error."""
    return anova(sample, [(factor,)]).test(factor)


def welch(sample: Sample, factor: str) -> tuple[float, float, float, float] | None:
    """Return Welch's one-way test without equal variances: F, both degrees of freedom, p (Biometrika 38, 1951).

    Returns:
        None where a level has fewer than two observations, or does not vary.
    """
    groups = sample.groups(factor)
    if any(len(group) < 2 or group.var(ddof=1) == 0 for group in groups):
        return None
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    means = np.array([group.mean() for group in groups])
    weights = sizes / np.array([group.var(ddof=1) for group in groups])
    count, total = len(groups), weights.sum()
    middle = (weights * means).sum() / total
    spread = ((1 - weights / total) ** 2 / (sizes - 1)).sum()
    numerator = (weights * (means - middle) ** 2).sum() / (count - 1)
    f = numerator / (1 + 2 * (count - 2) / (count**2 - 1) * spread)
    freedom = (count**2 - 1) / (3 * spread)
    return float(f), float(count - 1), float(freedom), float(stats.f.sf(f, count - 1, freedom))
