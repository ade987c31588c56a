"""Timestep bins as the tasks of a multi-task problem: the weights that serve them all best.

With g_k the gradient of the plain loss in bin k and M_jk = g_j . g_k, the weights minimise w'Mw + lambda |w|^2 over
w >= 0, sum w = 1 (Hang et al. 2023, arXiv 2303.09556, section 3.3). Without lambda the solution is the shortest vector
in the convex hull of the gradients: its negative is a direction in which no bin's loss rises (Sener and Koltun 2018,
arXiv 1810.04650, section 3.1). Arrays are float64; K is the number of bins.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

STEPS = 4000
"""Of either solver; Frank-Wolfe mostly ends earlier."""
STEP_SIZE = 0.05
"""Of Adam on the logits of the weights."""
GAP = 1e-4
"""Share of the objective by which Frank-Wolfe's result may lie above the optimum."""


def bin_of(timesteps: int, bins: int) -> Tensor:
    """Return the bin of each timestep, int64 [T]: equal parts of the path, 0 the cleanest."""
    return torch.arange(timesteps) * bins // timesteps


def regularised(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """Return M + lambda I with lambda = ``regularisation`` times the mean of M's diagonal, [K, K]."""
    return gram + regularisation * np.trace(gram) / len(gram) * np.eye(len(gram))


def objective_value(weights: np.ndarray, gram: np.ndarray, regularisation: float) -> float:
    """Return (w'Mw + lambda |w|^2) / mean |g_k|^2, w scaled to sum 1: without dimension, and comparable between draws.

    Args:
        weights: [K], not negative, not all 0.
        gram: M, [K, K].
        regularisation: lambda in units of the mean |g_k|^2.
    """
    shares = weights / weights.sum()
    return float(shares @ regularised(gram, regularisation) @ shares * len(gram) / np.trace(gram))


def unconstrained_gradient_descent(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """Return the optimal weights by Adam on b, w = softmax(b), from equal weights (2303.09556, section 3.3).

    Args:
        gram: M, [K, K].
        regularisation: lambda in units of the mean |g_k|^2.

    Returns:
        [K], positive, of sum 1.
    """
    matrix = _scaled(gram, regularisation)
    logits, mean, square = np.zeros(len(gram)), np.zeros(len(gram)), np.zeros(len(gram))
    weights = np.full(len(gram), 1 / len(gram))
    for step in range(1, STEPS + 1):
        slope = matrix @ weights
        gradient = 2 * weights * (slope - weights @ slope)  # through the softmax
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        logits -= STEP_SIZE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-12)
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
    return weights


def frank_wolfe(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """Return the optimal weights by Frank-Wolfe steps with exact line search (1810.04650, algorithm 2).

    Args:
        gram: M, [K, K].
        regularisation: lambda in units of the mean |g_k|^2.

    Returns:
        [K], not negative, of sum 1; their objective is within ``GAP`` of the optimum where ``STEPS`` suffice.
    """
    matrix = _scaled(gram, regularisation)
    weights = np.full(len(gram), 1 / len(gram))
    for _ in range(STEPS):
        slope = matrix @ weights
        best = int(slope.argmin())
        value = weights @ slope
        # The objective is convex, so 2 (value - slope[best]) bounds how far above the optimum it is.
        if 2 * (value - slope[best]) <= GAP * value:
            break
        curvature = value - 2 * slope[best] + matrix[best, best]
        step = min(1.0, (value - slope[best]) / curvature)
        weights *= 1 - step
        weights[best] += step
    return weights


SOLVERS = {"ugd": unconstrained_gradient_descent, "frank_wolfe": frank_wolfe}
"""By the names of the weightings."""


def bin_shares(weights: Tensor, bins: int) -> np.ndarray:
    """Return the mean weight in each bin, scaled to sum 1: a weighting as a point of the multi-task problem.

    Args:
        weights: [T], not negative, not all 0.
        bins: K.
    """
    index = bin_of(len(weights), bins)
    means = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, weights.double()) / index.bincount()
    return (means / means.sum()).numpy()


def _scaled(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """Return the regularised matrix with a mean diagonal of 1 + ``regularisation``: the solvers know no units."""
    return regularised(gram, regularisation) * len(gram) / np.trace(gram)
