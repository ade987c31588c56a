"""How near is every weighting to the multi-task optimum?

Source: Hang et al. 2023, arXiv 2303.09556, section 4.3 and figures 3 and 4, which leave lambda, bins and samples open;
here the objective is swept over lambda and repeated on several draws of the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inlay.errors import ConfigError
from inlay.objective.multitask import SOLVERS, bin_shares, objective_value
from inlay.objective.weighting import FIXED, weight_table
from inlay.run.analysis import bin_edges, measure_gradients, measured_job, record_head
from inlay.run.config import JobConfig
from inlay.run.record import now
from inlay.run.reporter import Reporter

LAMBDAS = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""In units of the mean squared gradient. Above about 0.1 the second term decides, and equal weights win."""
OTHER_DRAW = "ugd of another draw"
"""The optimum of one draw of the gradients, held against another: its worth on gradients that it did not see."""


def analyze_pareto(
    config: JobConfig,
    reporter: Reporter,
    bins: int,
    samples: int,
    draws: int,
    lambdas: Sequence[float] = LAMBDAS,
) -> dict[str, Any]:
    """Evaluate the regularised multi-task objective of every weighting at the job's present weights.

    Args:
        config: the job; gradients are those of the parameters that its method trains.
        reporter: told how it goes.
        bins: equal parts of the path.
        samples: pictures a bin and draw.
        draws: how often the gradients are measured anew, at least 2.
        lambdas: in units of the mean squared gradient.

    Returns:
        The record, JSON-ready. ``objective`` holds a value for every weighting, lambda and draw; ``weights`` the share
        of every bin, for the optimised weightings at every lambda and draw.

    Raises:
        ConfigError: there are no so many bins.
        InlayError: as :func:`inlay.run.job.execute`.
    """
    started = now()
    with measured_job(config, reporter) as job:
        edges = bin_edges(job, bins)
        path, prediction = job.diffusion.path, job.diffusion.objective.prediction
        assert prediction != "auto"
        gradients = measure_gradients(job, bins, samples, draws, reporter).double()
        grams = [(each @ each.T).numpy() for each in gradients]
        shares, refused = {}, {}
        for scheme in FIXED:
            try:
                shares[scheme.name] = bin_shares(weight_table(scheme, prediction, path), bins)
            except ConfigError as error:
                refused[scheme.name] = str(error)
        values, optima = evaluate(grams, shares, lambdas)
        return {
            **record_head("pareto", config, job, started),
            "bins": bins,
            "edges": edges,
            "samples": samples,
            "draws": draws,
            "lambdas": list(lambdas),
            "objective": {name: array.tolist() for name, array in values.items()},
            "weights": {name: share.tolist() for name, share in shares.items()}
            | {name: array.tolist() for name, array in optima.items()},
            "refused": refused,
            "gram": [gram.tolist() for gram in grams],
        }


def evaluate(
    grams: Sequence[np.ndarray], shares: dict[str, np.ndarray], lambdas: Sequence[float]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return (objective of every weighting, float64 [lambdas, draws]; optimal weights, [lambdas, draws, bins]).

    Args:
        grams: of each draw, [bins, bins].
        shares: the fixed weightings' weight in each bin, [bins].
        lambdas: in units of the mean squared gradient.
    """
    optima = {
        name: np.array([[solve(gram, each) for gram in grams] for each in lambdas]) for name, solve in SOLVERS.items()
    }
    candidates = {name: np.broadcast_to(share, optima["ugd"].shape) for name, share in shares.items()}
    candidates |= {**optima, OTHER_DRAW: np.roll(optima["ugd"], 1, axis=1)}
    values = {
        name: np.array(
            [
                [objective_value(array[row, draw], gram, each) for draw, gram in enumerate(grams)]
                for row, each in enumerate(lambdas)
            ]
        )
        for name, array in candidates.items()
    }
    return values, optima


def conclusion(record: dict[str, Any]) -> list[str]:
    """Return a sentence for the smallest, a middle and the largest lambda: which fixed weighting is nearest."""
    said = []
    rows = sorted({0, len(record["lambdas"]) // 2, len(record["lambdas"]) - 1})
    fixed = [name for name in record["objective"] if name not in (*SOLVERS, OTHER_DRAW)]
    for row in rows:
        means = {name: float(np.mean(values[row])) for name, values in record["objective"].items()}
        nearest = min(fixed, key=means.__getitem__)
        said.append(
            f"lambda {record['lambdas'][row]:g}: optimum {means['ugd']:.4g}, on other gradients "
            f"{means[OTHER_DRAW]:.4g}; nearest fixed weighting {nearest} with {means[nearest]:.4g}, plain "
            f"{means['plain']:.4g}"
        )
    return said
