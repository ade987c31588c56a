"""Samples with a known truth."""

from collections.abc import Sequence

import numpy as np

from inlay.study.statistics.sample import Sample, make_sample


def grid(levels: Sequence[int], each: int) -> dict[str, list[str]]:
    """Return the factors a, b, ... of a full design with `each` observations a cell."""
    codes = np.indices((*levels, each)).reshape(len(levels) + 1, -1)
    return {"abcdef"[number]: [f"{'abcdef'[number]}{code}" for code in codes[number]] for number in range(len(levels))}


def normal(factors: dict[str, list[str]], generator: np.random.Generator, effects: dict[str, float] | None = None):
    """Return a sample of unit scatter, with `effects` added at levels of any factor."""
    count = len(next(iter(factors.values())))
    response = generator.standard_normal(count)
    for values in factors.values():
        response += [(effects or {}).get(level, 0.0) for level in values]
    return make_sample(response, factors)


def without(sample: Sample, dropped: Sequence[int]) -> Sample:
    """Return a sample without some observations."""
    kept = np.setdiff1d(np.arange(len(sample)), dropped)
    factors = {name: [sample.levels[name][code] for code in sample.codes[name][kept]] for name in sample.factors}
    return make_sample(sample.response[kept], factors)
