"""Which combinations of levels are run: all, a fraction from which the effects can still be told apart, or a sample.

A regular fraction 2^(k-p) (Box, Hunter and Hunter, Statistics for Experimenters, chapter 6) confounds effects
completely or not at all, and which with which is known beforehand; it exists for factors of two levels when no
combination is forbidden and the runs are a power of two. Everywhere else the fraction is D-optimal: of the combinations
that the methods allow it takes those that make the determinant of X'X greatest, so that the joint confidence region of
the effects is smallest. Tables of orthogonal arrays would not do there, because they take every combination to be
possible and here many are not: of 70 pairs of positions 20 are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from inlay.errors import ConfigError
from inlay.randomness import derive
from inlay.study.settings import Factor, FractionalDesign, FullDesign, Level, RandomDesign

if TYPE_CHECKING:
    import numpy as np

STARTS = 8
"""Random beginnings of the D-optimal search; the best end is kept."""
Point = Mapping[str, Level]


def choose(
    design: FullDesign | FractionalDesign | RandomDesign, points: Sequence[Point], factors: Mapping[str, Factor]
) -> tuple[list[int], str]:
    """Return the indices of the combinations to run, in order, and the design in one sentence.

    Args:
        design: the study's.
        points: the combinations that can be run.
        factors: of the study.

    Raises:
        ConfigError: the design has too few runs for its effects, or more than there are combinations.
    """
    if isinstance(design, FullDesign):
        return list(range(len(points))), f"full factorial: all {len(points)} combinations"
    if design.runs > len(points):
        raise ConfigError(f"design.runs={design.runs}: only {len(points)} combinations can be run")
    if isinstance(design, RandomDesign):
        order = sorted(range(len(points)), key=lambda index: derive(design.seed, "design", index))
        return sorted(order[: design.runs]), f"random: {design.runs} of {len(points)} combinations"
    varied = {name: factor for name, factor in factors.items() if len(factor.names) > 1}
    regular = (
        all(len(factor.names) == 2 for factor in varied.values())
        and len(points) == 2 ** len(varied)
        and design.runs & (design.runs - 1) == 0
    )
    if regular and design.runs < len(points):
        return _regular(design, points, varied)
    return _optimal(design, points, varied)


def _regular(design: FractionalDesign, points: Sequence[Point], factors: Mapping[str, Factor]) -> tuple[list[int], str]:
    """Take the fraction of highest resolution and, among those, least aberration."""
    names = list(factors)
    basic = design.runs.bit_length() - 1
    added = len(names) - basic
    best: tuple[tuple[int, ...], tuple[tuple[int, ...], ...]] | None = None
    products = [columns for size in range(2, basic + 1) for columns in itertools.combinations(range(basic), size)]
    for generators in itertools.islice(itertools.combinations(products, added), 200_000):
        lengths = _word_lengths(basic, generators)
        # Fewest words of length 1, then 2, then 3: highest resolution first, least aberration among equals.
        pattern = tuple(lengths.count(size) for size in range(1, len(names) + 1))
        if best is None or pattern < best[0]:
            best = pattern, generators
    if best is None:
        raise ConfigError(
            f"design.runs={design.runs}: too few to tell the effects of {len(names)} factors apart; give more"
        )
    pattern, generators = best
    resolution = next(size for size, count in enumerate(pattern, 1) if count)
    if design.interactions and resolution < 5:
        raise ConfigError(
            f"design.runs={design.runs}: the best fraction has resolution {resolution}, in which effects of two "
            "factors are confounded; from resolution 5 on they are not: give more runs, or interactions: false"
        )
    high = {name: factor.names[1] for name, factor in factors.items()}
    chosen = []
    for index, point in enumerate(points):
        signs = [1 if point[name] == high[name] else -1 for name in names]
        # A generator says which product of basic columns an added factor's column is.
        if all(signs[basic + which] == _product(signs, columns) for which, columns in enumerate(generators)):
            chosen.append(index)
    words = ", ".join(
        f"{names[basic + which]} = {' x '.join(names[column] for column in columns)}"
        for which, columns in enumerate(generators)
    )
    return chosen, (
        f"regular fraction 2^({len(names)}-{added}) of resolution {resolution}: {design.runs} of {len(points)} "
        f"combinations, with {words}"
    )


def _word_lengths(basic: int, generators: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the lengths of all words of the defining relation."""
    words = [frozenset((*columns, basic + which)) for which, columns in enumerate(generators)]
    lengths = []
    for size in range(1, len(words) + 1):
        for some in itertools.combinations(words, size):
            word: frozenset[int] = frozenset()
            for one in some:
                word ^= one
            lengths.append(len(word))
    return lengths


def _product(signs: Sequence[int], columns: Sequence[int]) -> int:
    product = 1
    for column in columns:
        product *= signs[column]
    return product


def _optimal(design: FractionalDesign, points: Sequence[Point], factors: Mapping[str, Factor]) -> tuple[list[int], str]:
    """Exchange runs for unused combinations as long as the determinant grows (Fedorov 1972)."""
    import numpy as np

    matrix = _model(points, factors, design.interactions)
    terms = matrix.shape[1]
    what = "the effects of each factor" + (" and of each two together" if design.interactions else "")
    if design.runs < terms:
        raise ConfigError(f"design.runs={design.runs}: {what} have {terms} parameters; give at least as many runs")
    random = np.random.default_rng(derive(design.seed, "design"))
    best: tuple[float, list[int]] = (-np.inf, [])
    for _ in range(STARTS):
        chosen = _exchange(matrix, _start(matrix, design.runs, random))
        sign, size = np.linalg.slogdet(matrix[chosen].T @ matrix[chosen])
        if sign > 0 and size > best[0] + 1e-9:
            best = size, sorted(chosen)
    if not best[1]:
        raise ConfigError(f"design.runs={design.runs}: no such choice of combinations tells {what} apart; give more")
    whole = np.linalg.slogdet(matrix.T @ matrix)[1]
    efficiency = float(np.exp((best[0] - whole) / terms) * len(points) / design.runs)
    return best[1], (
        f"D-optimal: {design.runs} of {len(points)} combinations for {what} ({terms} parameters), "
        f"{100 * efficiency:.0f} % as informative a run as all of them"
    )


def _model(points: Sequence[Point], factors: Mapping[str, Factor], interactions: bool) -> np.ndarray:
    """Return the matrix of effects [points, terms]: orthonormal columns that span what the effects can explain.

    Levels that can only occur with certain others make columns dependent; those that add nothing are dropped.
    """
    import numpy as np

    columns = [np.ones((len(points), 1))]
    parts = []
    for name, factor in factors.items():
        part = np.array([[float(point[name] == level) for level in factor.names[1:]] for point in points])
        parts.append(part)
        columns.append(part)
    if interactions:
        for one, other in itertools.combinations(parts, 2):
            columns.append(np.einsum("ni,nj->nij", one, other).reshape(len(points), -1))
    left, sizes, _ = np.linalg.svd(np.concatenate(columns, 1), full_matrices=False)
    return left[:, sizes > sizes[0] * 1e-9] * np.sqrt(len(points))


def _start(matrix: np.ndarray, runs: int, random: np.random.Generator) -> list[int]:
    """Return runs that span the effects, as far as a random order allows, filled up at random."""
    import numpy as np

    order = random.permutation(len(matrix)).tolist()
    chosen: list[int] = []
    rest = matrix.copy()
    for _ in range(min(runs, matrix.shape[1])):  # Gram-Schmidt with pivots: the point least explained so far
        norms = np.einsum("nd,nd->n", rest, rest)
        norms[chosen] = -1
        noise = random.uniform(0.5, 1.0, len(norms))
        pick = int(np.argmax(np.where(norms > 1e-9, norms * noise, -1)))
        if norms[pick] <= 1e-9:
            break
        chosen.append(pick)
        direction = rest[pick] / np.sqrt(norms[pick])
        rest = rest - np.outer(rest @ direction, direction)
    chosen += [index for index in order if index not in set(chosen)][: runs - len(chosen)]
    return chosen


def _exchange(matrix: np.ndarray, chosen: list[int]) -> list[int]:
    import numpy as np

    for _ in range(100):
        information = matrix[chosen].T @ matrix[chosen]
        sign, _ = np.linalg.slogdet(information)
        if sign <= 0:
            return chosen
        inverse = np.linalg.inv(information)
        spread = np.einsum("nd,de,ne->n", matrix, inverse, matrix)
        mixed = matrix[chosen] @ inverse @ matrix.T
        # Fedorov's delta: by which factor the determinant changes when a run is exchanged for another point.
        gain = (1 + spread[None, :]) * (1 - spread[chosen][:, None]) + mixed**2
        gain[:, chosen] = 0
        row, column = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[row, column] <= 1 + 1e-9:
            return chosen
        chosen = [*chosen]
        chosen[int(row)] = int(column)
    return chosen
