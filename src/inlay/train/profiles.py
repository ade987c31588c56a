"""Power-function averaging profiles, and how stored averages combine into one that was not stored.

The average of length sigma_rel at step t weighs the weights of step s in proportion to s^gamma: its profile is
p(s) = (gamma + 1) s^gamma / t^(gamma + 1) on (0, t]. sigma_rel is the profile's standard deviation over t, so the
average always looks back over the same share of the training.

Source: Karras et al. 2024, arXiv 2312.02696 (EDM2), section 3 and algorithm 3; equation numbers are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LONGEST = 0.28
"""Largest sigma_rel: that of a plain mean of all steps is 1 / sqrt(12) = 0.289."""


class Profile(NamedTuple):
    """Which average: its relative length, and the step at which it was taken."""

    sigma_rel: float
    step: int


def exponent(sigma_rel: float) -> float:
    """Return gamma of a relative length: the positive root of (gamma + 2)^2 (gamma + 3) sigma^2 = gamma + 1.

    Args:
        sigma_rel: in (0, ``LONGEST``].

    Raises:
        ValueError: it is outside that range.
    """
    if not 0 < sigma_rel <= LONGEST:
        raise ValueError(f"sigma_rel must be above 0 and at most {LONGEST}, got {sigma_rel}")
    inverse = sigma_rel**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots.real.max())


def decay(sigma_rel: float, step: int) -> float:
    """Return the share of the old average that update ``step``, counted from 1, keeps: (1 - 1 / t)^(gamma + 1).

    With it the weights of step s count as the integral of the profile from s - 1 to s; the initial ones not at all.
    """
    return (1 - 1 / step) ** (exponent(sigma_rel) + 1)


def products(ones: Sequence[Profile], others: Sequence[Profile]) -> np.ndarray:
    """Return the integrals of the products of profiles, float64 [ones, others], each times the later step of the two.

    The closed form of algorithm 3. The factor makes it a number without dimension, which neither overflows nor depends
    on how time is counted; see :func:`coefficients` for where it goes.
    """
    gammas, steps = _columns(ones)
    other_gammas, other_steps = _columns(others)
    gammas, steps = gammas[:, None], steps[:, None]
    shorter, longer = np.minimum(steps, other_steps), np.maximum(steps, other_steps)
    # Of the profile that ends later, only the part up to the earlier end meets the other.
    tail = np.where(steps > other_steps, gammas, np.broadcast_to(other_gammas, shorter.shape))
    height = (gammas + 1) * (other_gammas + 1) / (gammas + other_gammas + 1)
    return height * (shorter / longer) ** tail


def coefficients(stored: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """Return how to sum stored averages so that the sum's profile is nearest to the one wanted.

    Least squares as in algorithm 3, but over factors whose sum is 1: weights that training does not move, or a base's
    that it hardly moves, then stay as they are also where the stored profiles cannot make the one wanted well.

    Args:
        stored: what there is.
        wanted: what to make.

    Returns:
        A factor for each stored average, float64, and the distance that remains: the norm of the difference of the
        profiles over the norm of the one wanted; 0 for one that is stored.

    Raises:
        ValueError: nothing is stored.
    """
    if not stored:
        raise ValueError("there are no stored averages to combine")
    if wanted in stored:
        return np.eye(len(stored))[list(stored).index(wanted)], 0.0
    between, towards = products(stored, stored), products(stored, [wanted])[:, 0]
    latest = np.array([[max(one.step, other.step) for other in stored] for one in stored], dtype=np.float64)
    gram = between / latest
    right = towards / np.array([max(one.step, wanted.step) for one in stored])
    # Profiles of unit norm: their lengths differ by orders of magnitude, and the solver cuts off by size.
    norms = np.sqrt(np.diag(gram))
    rule = 1 / norms / np.linalg.norm(1 / norms)
    system = np.block([[gram / np.outer(norms, norms), rule[:, None]], [rule, np.zeros(1)]])
    goal = np.append(right / norms, 1 / np.linalg.norm(1 / norms))
    factors = np.linalg.lstsq(system, goal, rcond=None)[0][:-1] / norms
    own = products([wanted], [wanted])[0, 0] / wanted.step
    left = own - 2 * factors @ right + factors @ gram @ factors
    return factors, float(np.sqrt(max(left, 0.0) / own))


def _columns(profiles: Sequence[Profile]) -> tuple[np.ndarray, np.ndarray]:
    gammas = np.array([exponent(profile.sigma_rel) for profile in profiles])
    return gammas, np.array([profile.step for profile in profiles], dtype=np.float64)
