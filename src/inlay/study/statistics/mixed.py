"""Seeds and subjects as random effects: does a finding hold for others than those that were measured?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, stats

from inlay.errors import ConfigError
from inlay.study.statistics.anova import Test, anova
from inlay.study.statistics.design import Term, basis, matrix, name_of, term_columns
from inlay.study.statistics.sample import Sample, make_sample

FEWEST_LEVELS = 10
"""Levels below which the variance between them is too roughly known; the factor then is a fixed block."""


@dataclass(frozen=True)
class Wald:
    """A test of a fixed term of a mixed model."""

    term: Term
    freedom: int
    error_freedom: int
    """By containment: N less the rank of fixed and random effects together."""
    f: float
    p: float

    @property
    def name(self) -> str:
        """As printed."""
        return name_of(self.term)


@dataclass(frozen=True)
class Mixed:
    """A mixed model, fitted by restricted maximum likelihood."""

    tests: tuple[Wald, ...]
    deviations: dict[str, float]
    """Standard deviation of each random effect and of the `residual`, in the response's unit."""
    fixed: tuple[str, ...]
    """Groupings that became fixed blocks, for they have fewer than `FEWEST_LEVELS` levels."""
    notes: tuple[str, ...]
    """Which deviations lie at the boundary, 0."""


def mixed(sample: Sample, terms: Sequence[Term], groupings: Sequence[str], fewest: int = FEWEST_LEVELS) -> Mixed | None:
    """Fit terms as fixed effects and groupings as crossed random intercepts.

    Args:
        sample: with the terms' factors and the groupings.
        terms: fixed effects.
        groupings: factors whose levels are a draw from many, such as `seed` and `task`.
        fewest: levels below which a grouping is a fixed block instead.

    Returns:
        None when no grouping has enough levels: the fixed blocks of `anova` then say all there is.

    Raises:
        ConfigError: the fixed terms cannot be told from each other in these data.
    """
    random = [name for name in groupings if len(sample.levels[name]) >= fewest]
    fixed = tuple(name for name in groupings if name not in random)
    if not random:
        return None
    used = [*terms, *((name,) for name in fixed if len(sample.levels[name]) > 1)]
    columns = matrix(sample, used)
    if basis(columns).shape[1] < columns.shape[1]:
        raise ConfigError(
            f"empty cells: {', '.join(map(name_of, used))} cannot be told from each other; leave out terms"
        )
    indicators = {name: np.eye(len(sample.levels[name]))[sample.codes[name]] for name in random}
    error_freedom = len(sample) - basis(np.hstack([columns, *indicators.values()])).shape[1]
    if error_freedom < 1:
        raise ConfigError(f"{len(sample)} observations leave no degrees of freedom for the error")
    coefficients, covariance, deviations, notes = _restricted_likelihood(sample, columns, indicators)
    tests, start = [], 1
    for term in used:
        width = term_columns(sample, term).shape[1]
        part = slice(start, start + width)
        start += width
        f = float(coefficients[part] @ np.linalg.solve(covariance[part, part], coefficients[part])) / width
        tests.append(Wald(term, width, error_freedom, f, float(stats.f.sf(f, width, error_freedom))))
    return Mixed(tuple(tests), deviations, fixed, notes)


def _restricted_likelihood(
    sample: Sample, columns: NDArray[np.float64], indicators: dict[str, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, float], tuple[str, ...]]:
    """Return the fixed effects [P], their covariance [P, P], the deviations, and complaints.

    The response has covariance s^2 V, V = I + Z L^2 Z' with L = diag(deviation of each effect / s). Profiled over the
    fixed effects and s, minus twice the restricted likelihood is log|V| + log|X'V^-1 X| + (N - P) log r'V^-1 r (Bates
    et al., J. Statistical Software 67, 2015, section 3.4).
    """
    effects = np.hstack(list(indicators.values()))
    owner = np.repeat(np.arange(len(indicators)), [indicator.shape[1] for indicator in indicators.values()])
    # In units of its own scatter, so that the optimizer's tolerances mean the same for every metric.
    scale = float(sample.response.std()) or 1.0
    response = (sample.response - sample.response.mean()) / scale
    both = np.hstack([columns, response[:, None]])
    square, mixed_square, effect_square = both.T @ both, effects.T @ both, effects.T @ effects
    count, width = columns.shape

    def solve(ratios: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64], float]:
        scaled = ratios[owner]
        root = np.linalg.cholesky(np.eye(len(scaled)) + scaled[:, None] * effect_square * scaled)
        part = linalg.solve_triangular(root, scaled[:, None] * mixed_square, lower=True)
        inner = square - part.T @ part  # [X y]' V^-1 [X y], by Woodbury's identity
        information = inner[:width, :width]
        coefficients = np.linalg.solve(information, inner[:width, width])
        left = float(inner[width, width] - inner[:width, width] @ coefficients)
        determinants = 2 * np.log(np.diag(root)).sum() + np.linalg.slogdet(information)[1]
        return float(determinants + (count - width) * np.log(left)), coefficients, information, left

    def criterion(ratios: NDArray[np.float64]) -> float:
        return solve(ratios)[0]

    bounds = [(0.0, None)] * len(indicators)
    tries = [
        optimize.minimize(criterion, np.full(len(indicators), start), method="L-BFGS-B", bounds=bounds, tol=1e-12)
        for start in (0.3, 3.0)
    ]
    best = min(tries, key=lambda found: found.fun)
    _, coefficients, information, left = solve(best.x)
    variance = left / (count - width)
    deviations = {
        name: float(ratio * np.sqrt(variance)) * scale for name, ratio in zip(indicators, best.x, strict=True)
    }
    deviations["residual"] = float(np.sqrt(variance)) * scale
    notes = tuple(f"no variance between levels of {name} can be seen" for name in indicators if deviations[name] == 0)
    return coefficients * scale, variance * scale**2 * np.linalg.inv(information), deviations, notes


def across(sample: Sample, factor: str, grouping: str) -> Test | None:
    """Test a factor against how much its effect differs between the levels of a grouping.

    The question is whether the finding would hold on average for other subjects, of which those measured are a draw:
    F is the factor's mean square over that of its interaction with the grouping, on means over all else (the mixed
    model of Scheffe with a random interaction; exact when every cell was measured equally often).

    Returns:
        None with fewer than two levels of either, or when too few cells are filled to judge.
    """
    pairs = sorted(sample.cells((factor, grouping)))
    value = [
        float(sample.response[(sample.codes[factor] == code) & (sample.codes[grouping] == other)].mean())
        for code, other in pairs
    ]
    table = make_sample(
        value,
        {
            factor: [sample.levels[factor][code] for code, _ in pairs],
            grouping: [sample.levels[grouping][other] for _, other in pairs],
        },
    )
    if min(len(levels) for levels in table.levels.values()) < 2:
        return None
    try:
        found = anova(table, [(factor,), (grouping,)]).test(factor)
    except ConfigError:
        return None
    return found if found.p is not None else None
