"""How much runs scatter where each setting has few: its own variance, drawn towards what all settings have in common.

Three runs say little of their own scatter, and one scatter for all is wrong where a method fails now and then. So the
true variances are taken as drawn from a scaled inverse chi-square distribution, whose width the observed ones tell
(Smyth, G. K. Statistical Applications in Genetics and Molecular Biology 3, 2004, article 3, section 6.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

LEAST = 1e-5
"""Part of the median below which a variance counts as this, so that its logarithm exists."""


def moderate(groups: Sequence[Sequence[float]]) -> tuple[list[float], list[float]] | None:
    """Return each group's variance and its degrees of freedom; None where no group has two values.

    A group of one value has the variance that groups have in common. Where the groups scatter alike as far as chance
    lets one see, all have the pooled variance.
    """
    freedom = np.array([len(group) - 1 for group in groups], dtype=np.float64)
    total = float(freedom.sum())
    if total < 1:
        return None
    squares = np.array([float(np.var(group)) * len(group) for group in groups])
    pooled = float(squares.sum()) / total
    several = freedom > 0
    own, known = squares[several] / freedom[several], freedom[several]
    prior, spread = pooled, math.inf
    if len(own) > 1 and np.median(own) > 0:
        logs = np.log(np.maximum(own, LEAST * np.median(own)))
        centred = logs - special.digamma(known / 2) + np.log(known / 2)
        excess = float(np.var(centred, ddof=1) - special.polygamma(1, known / 2).mean())
        if excess > 0:
            spread = 2 * _inverse_trigamma(excess)
            prior = math.exp(float(centred.mean()) + float(special.digamma(spread / 2)) - math.log(spread / 2))
    if math.isinf(spread):
        return [pooled] * len(groups), [total] * len(groups)
    variances = (spread * prior + squares) / (spread + freedom)
    return variances.tolist(), np.clip(spread + freedom, 1, total).tolist()


def _inverse_trigamma(value: float) -> float:
    """Return x > 0 with trigamma(x) = value, by Newton's method on 1 / trigamma, which is nearly straight."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if -step < 1e-8 * x:
            break
    return x
