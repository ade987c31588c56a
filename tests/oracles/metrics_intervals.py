"""Measures how often intervals cover: the table in docs/concepts/metrics.md.

Sets of pictures are drawn again and again from a known distribution, 16 correlated features, against a kept reference.
An interval for this number of pictures should cover the mean of the figure over all draws; one for a distance without
bias should cover the distance that infinitely many pictures have. From the project's root:

    python -m tests.oracles.metrics_intervals
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from inlay.metrics.alignment import diversity, image_similarity
from inlay.metrics.frechet import frechet, frechet_distance, infinity
from inlay.metrics.intervals import Interval
from inlay.metrics.kernels import kid
from inlay.metrics.manifold import density_coverage, precision_recall
from inlay.metrics.measure import Features
from inlay.metrics.reference import summarise

REPETITIONS, WIDTH, PICTURES, PROMPTS = 200, 16, 200, 40
BOOTSTRAPS = 200
MIXING = np.random.default_rng(1).normal(size=(WIDTH, WIDTH)) / 4


def draw(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Return correlated features [N, D]."""
    return np.random.default_rng(seed).normal(size=(count, WIDTH)) @ MIXING + shift


def of(rows: np.ndarray, clusters: list[int] | None = None) -> Features:
    """Return rows as features."""
    return Features(rows, "simulated", "none", None if clusters is None else tuple(clusters))


def in_prompts(seed: int) -> Features:
    """Return features of which half the variance is common to the five pictures of a prompt."""
    each = PICTURES // PROMPTS
    common = np.repeat(draw(PROMPTS, seed + 10**6), each, 0)
    rows = np.sqrt(0.5) * (common + draw(PICTURES, seed)) + 0.3
    return of(rows, np.repeat(np.arange(PROMPTS), each).tolist())


def bootstrap(rows: np.ndarray, reference: np.ndarray, seed: int) -> Interval:
    """Return the naive interval: percentiles over pictures drawn with replacement."""
    choose = np.random.default_rng(seed)
    values = [frechet_distance(rows[choose.integers(0, len(rows), len(rows))], reference) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))


def main() -> None:
    """Print the share of intervals that cover, by metric."""
    real = draw(1000, 0)
    reference, statistics = of(real), summarise(of(real))
    few = of(real[:PICTURES])
    mean, covariance = np.full(WIDTH, 0.3), MIXING.T @ MIXING
    root = statistics.root
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance @ root), 0)).sum()
    truth = ((mean - statistics.mean) ** 2).sum() + np.trace(covariance) + statistics.trace - 2 * roots

    values, intervals = defaultdict(list), defaultdict(list)
    for seed in range(1, REPETITIONS + 1):
        single, prompted = of(draw(PICTURES, seed, 0.3)), in_prompts(seed)
        measures = [frechet(single, statistics), infinity(single, statistics), kid(single, reference)]
        measures += [*precision_recall(single, few), *density_coverage(single, few)]
        for measure in measures:
            values[measure.metric].append(measure.value)
            intervals[measure.metric].append(measure.interval)
        for name, measure in (
            ("mean cosine, by prompt", image_similarity(prompted, few)),
            ("mean cosine, prompts ignored", image_similarity(of(prompted.values), few)),
            ("diversity, by prompt", diversity(prompted)),
            ("frechet, by prompt", frechet(prompted, statistics)),
        ):
            values[name].append(measure.value)
            intervals[name].append(measure.interval)
        values["frechet, naive bootstrap"].append(values["FD-simulated"][-1])
        intervals["frechet, naive bootstrap"].append(bootstrap(single.values, real, seed))

    for name, found in values.items():
        targets = {"its mean at this number": np.mean(found)}
        if name.startswith(("FD", "frechet, naive")):
            targets["infinitely many"] = truth
        for what, target in targets.items():
            hits = np.mean([item is not None and item.low <= target <= item.high for item in intervals[name]])
            print(f"{name:32s} {what:26s} {target:9.4f}  covered {hits:6.1%}")


if __name__ == "__main__":
    main()
