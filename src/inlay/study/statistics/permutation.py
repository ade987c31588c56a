"""Permutation tests: how often would chance alone give an F this large in just these data?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inlay.errors import ConfigError
from inlay.randomness import derive
from inlay.study.statistics.anova import Kind, contrast_models
from inlay.study.statistics.design import Term, basis, fit, matrix, name_of
from inlay.study.statistics.sample import Sample

DRAWS = 9999
"""Permutations: the smallest p that can come out is 1 in 10,000."""
CHUNK = 1_000


def freedman_lane(
    sample: Sample, terms: Sequence[Term], term: Term, kind: Kind = "II", draws: int = DRAWS, seed: int = 0
) -> float:
    """Return the p-value of a term by permuted residuals of the model without it.

    Needs no bell shape, only that errors are exchangeable. The residuals of the reduced model are shuffled, put back
    onto its fitted values, and F is computed anew (Freedman and Lane, J. Business & Economic Statistics 1, 1983; the
    best of its kind in Winkler et al., NeuroImage 92, 2014). The observed order counts as one of the draws.

    Args:
        sample: as for `anova`.
        terms: of the model.
        term: one of them.
        kind: of the sums of squares.
        draws: permutations.
        seed: of the shuffling; the same seed gives the same p.

    Raises:
        ConfigError: the term cannot be told from others, or no degrees of freedom are left for the error.
    """
    larger, smaller = contrast_models(sample, terms, term, kind)
    reduced = fit(sample, smaller)
    nuisance, with_term, whole = basis(smaller), basis(larger), basis(matrix(sample, terms))
    freedom, error_freedom = with_term.shape[1] - nuisance.shape[1], len(sample) - whole.shape[1]
    if freedom < 1 or error_freedom < 1:
        raise ConfigError(f"{name_of(term)}: no degrees of freedom for the term or for the error")

    def ratio(response: np.ndarray) -> np.ndarray:
        """Return F up to a constant factor of responses [N, B]."""
        explained = ((with_term.T @ response) ** 2).sum(0) - ((nuisance.T @ response) ** 2).sum(0)
        total = (response**2).sum(0)
        left = total - ((whole.T @ response) ** 2).sum(0)
        # A shuffle that the model happens to fit exactly leaves nothing but rounding.
        return explained / np.maximum(left, 1e-12 * total)

    # Fitted values of the reduced model change neither sum of squares; taken out, less is lost to rounding.
    observed = float(ratio(reduced.residuals[:, None])[0])
    generator = np.random.default_rng(derive(seed, "permutation"))
    reached = 0
    for start in range(0, draws, CHUNK):
        count = min(CHUNK, draws - start)
        shuffled = generator.permuted(np.tile(reduced.residuals, (count, 1)), axis=1).T
        reached += int((ratio(shuffled) >= observed * (1 - 1e-10)).sum())
    return (1 + reached) / (1 + draws)
