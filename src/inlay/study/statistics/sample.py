"""Numbers and the levels at which they were measured: what every test here takes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inlay.errors import ConfigError, DataError
from inlay.study.table import Level, Row

TASK, SEED = "task", "seed"
"""Names of the two factors that every row has beside the study's own."""


@dataclass(frozen=True, eq=False)
class Sample:
    """N observations of one response, each at one level of every factor."""

    response: NDArray[np.float64]
    """[N], finite."""
    codes: Mapping[str, NDArray[np.int64]]
    """For each factor [N]: the index of the observation's level."""
    levels: Mapping[str, tuple[Level, ...]]
    """For each factor the levels that occur, in order."""

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the factors."""
        return tuple(self.codes)

    def __len__(self) -> int:
        return len(self.response)

    def groups(self, factor: str) -> list[NDArray[np.float64]]:
        """Return the responses at each level of a factor."""
        return [self.response[self.codes[factor] == code] for code in range(len(self.levels[factor]))]

    def cells(self, factors: Sequence[str]) -> Counter[tuple[int, ...]]:
        """Return how many observations each combination of codes has."""
        return Counter(zip(*(self.codes[factor].tolist() for factor in factors), strict=True))

    def missing(self, factors: Sequence[str]) -> list[tuple[Level, ...]]:
        """Return the combinations of levels that no observation has."""
        present = self.cells(factors)
        every = product(*(range(len(self.levels[factor])) for factor in factors))
        return [
            tuple(self.levels[factor][code] for factor, code in zip(factors, codes, strict=True))
            for codes in every
            if codes not in present
        ]

    def with_response(self, response: NDArray[np.float64]) -> Sample:
        """Return the same design with other numbers."""
        return Sample(response, self.codes, self.levels)


def make_sample(response: ArrayLike, factors: Mapping[str, Sequence[Level]]) -> Sample:
    """Return a sample; levels keep the order of first appearance, numbers are sorted.

    Args:
        response: [N].
        factors: for each factor the level of each observation.

    Raises:
        DataError: lengths differ, a response is not finite, or there are none.
    """
    numbers = np.asarray(response, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise DataError(f"a sample needs a list of numbers, not an array of shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise DataError("a response is not finite; rows without a result must be left out before")
    codes, levels = {}, {}
    for name, values in factors.items():
        if len(values) != len(numbers):
            raise DataError(f"factor {name}: {len(values)} levels for {len(numbers)} observations")
        found = list(dict.fromkeys(values))
        if all(isinstance(level, (int, float)) and not isinstance(level, bool) for level in found):
            found.sort()  # type: ignore[type-var]
        index = {level: code for code, level in enumerate(found)}
        levels[name] = tuple(found)
        codes[name] = np.array([index[value] for value in values], dtype=np.int64)
    return Sample(numbers, codes, levels)


def level_of(row: Row, factor: str) -> Level:
    """Return a row's level of a factor, `task` and `seed` among them."""
    if factor == TASK:
        return row.task
    return row.seed if factor == SEED else row.factors.get(factor)


def has(row: Row, metric: str) -> bool:
    """Return whether a row has a finite value of a metric."""
    value = row.metrics.get(metric)
    return row.status == "done" and value is not None and math.isfinite(value)


def sample_of(rows: Sequence[Row], metric: str, factors: Sequence[str]) -> Sample:
    """Return the sample of all rows that have a metric; those that failed or lack it are left out.

    Args:
        rows: of a study.
        metric: the response.
        factors: of the study, or `task` and `seed`.

    Raises:
        ConfigError: no row has the metric or a factor of this name.
    """
    known = {metric for row in rows for metric in row.metrics}
    used = [row for row in rows if has(row, metric)]
    if not used:
        raise ConfigError(
            f"no cell has a value of {metric!r}; the metrics there are {', '.join(sorted(known)) or 'none'}"
        )
    names = {factor for row in rows for factor in row.factors} | {TASK, SEED}
    for factor in factors:
        if factor not in names:
            raise ConfigError(f"no factor is called {factor!r}; there are {', '.join(sorted(names))}")
    response = [row.metrics[metric] for row in used]
    return make_sample(response, {factor: [level_of(row, factor) for row in used] for factor in factors})  # type: ignore[arg-type]
