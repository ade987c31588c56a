"""Tests of ranks, which outliers and odd distributions cannot lead astray."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from inlay.errors import ConfigError
from inlay.study.statistics.anova import Kind, Test, anova, contrast_models
from inlay.study.statistics.design import Term, fit, matrix
from inlay.study.statistics.sample import Sample


def kruskal(sample: Sample, factor: str) -> tuple[float, int, float]:
    """Return the one-way test of Kruskal and Wallis (1952): H, its degrees of freedom and p.

    Raises:
        ConfigError: the factor has one level, or all responses are equal.
    """
    groups = sample.groups(factor)
    if len(groups) < 2 or np.ptp(sample.response) == 0:
        raise ConfigError(f"{factor}: ranks need two levels and responses that differ")
    found = stats.kruskal(*groups)
    return float(found.statistic), len(groups) - 1, float(found.pvalue)


def aligned_ranks(sample: Sample, terms: Sequence[Term], term: Term, kind: Kind = "II") -> Test:
    """Return the test of one term of a factorial model on aligned ranks.

    All other effects are taken out of the response: what remains is the residual of the whole model and the effect of
    the term. Its ranks are analysed by the same model, and only this term is read off (Higgins and Tashtoush 1994;
    Wobbrock et al., CHI 2011, arrange it for any number of factors).

    Args:
        sample: as for `anova`.
        terms: of the model.
        term: one of them.
        kind: of the sums of squares.
    """
    whole = fit(sample, matrix(sample, terms))
    larger, smaller = (fit(sample, columns) for columns in contrast_models(sample, terms, term, kind))
    aligned = whole.residuals + larger.fitted - smaller.fitted
    # Equal up to rounding is equal: ranks would make noise out of the last bit.
    scale = max(float(np.abs(aligned).max()), 1e-300)
    ranks = stats.rankdata(np.round(aligned / scale, 12))
    return anova(sample.with_response(ranks), terms, kind).test(*term)
