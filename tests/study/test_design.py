import itertools

import numpy as np
import pytest

from inlay.errors import ConfigError
from inlay.run.load import validate
from inlay.study.design import _model, choose
from inlay.study.settings import Factor, FractionalDesign, FullDesign, RandomDesign


def factors(*counts):
    names = "abcdefghij"
    return {name: validate(Factor, {"levels": list(range(count))}) for name, count in zip(names, counts, strict=False)}


def points(found):
    return [
        dict(zip(found, levels, strict=True)) for levels in itertools.product(*(one.names for one in found.values()))
    ]


def test_full_is_all():
    found = factors(2, 3)
    assert choose(FullDesign(), points(found), found)[0] == list(range(6))


# Box, Hunter and Hunter 2005, table 6.22: the highest resolution of fractions of two-level factors.
@pytest.mark.parametrize(
    ("count", "runs", "resolution"),
    [(3, 4, 3), (4, 8, 4), (5, 8, 3), (5, 16, 5), (6, 16, 4), (7, 8, 3), (7, 16, 4), (7, 32, 4), (7, 64, 7)],
)
def test_regular_fractions_have_the_published_resolution(count, runs, resolution):
    found = factors(*[2] * count)
    chosen, sentence = choose(FractionalDesign(runs=runs), points(found), found)
    assert len(chosen) == runs
    assert f"of resolution {resolution}:" in sentence
    signs = np.array([[1 if level else -1 for level in points(found)[index].values()] for index in chosen])
    # Balanced, and every two main effects orthogonal.
    assert np.array_equal(signs.T @ signs, runs * np.eye(count))


def test_a_fraction_that_confounds_what_is_asked_for_is_refused():
    found = factors(*[2] * 5)
    with pytest.raises(ConfigError, match="resolution 3, in which effects of two factors are confounded"):
        choose(FractionalDesign(runs=8, interactions=True), points(found), found)
    assert len(choose(FractionalDesign(runs=16, interactions=True), points(found), found)[0]) == 16


def test_a_d_optimal_fraction_of_a_product_is_as_good_as_an_orthogonal_array():
    # Taguchi's L9 takes 9 of the 81 combinations of four factors of three levels and is orthogonal: efficiency 1.
    found = factors(3, 3, 3, 3)
    chosen, sentence = choose(FractionalDesign(runs=9), points(found), found)
    assert len(set(chosen)) == 9
    assert "100 % as informative" in sentence


def test_a_d_optimal_fraction_respects_what_is_possible():
    found = factors(4, 4, 2)
    possible = [point for point in points(found) if point["a"] <= point["b"]]
    chosen, sentence = choose(FractionalDesign(runs=10), possible, found)
    assert len(set(chosen)) == 10
    assert "D-optimal: 10 of 20 combinations" in sentence
    matrix = _model(possible, found, False)
    best = np.linalg.slogdet(matrix[chosen].T @ matrix[chosen])[1]
    random = np.random.default_rng(0)
    for _ in range(500):
        other = random.choice(20, 10, replace=False)
        sign, size = np.linalg.slogdet(matrix[other].T @ matrix[other])
        assert sign <= 0 or size <= best + 1e-9


def test_too_few_runs_are_refused():
    found = factors(3, 3)
    with pytest.raises(ConfigError, match="have 5 parameters; give at least as many runs"):
        choose(FractionalDesign(runs=4), points(found), found)
    with pytest.raises(ConfigError, match="only 9 combinations can be run"):
        choose(RandomDesign(runs=10), points(found), found)


def test_a_random_design_follows_from_its_seed():
    found = factors(5, 5)
    one, again, other = (choose(RandomDesign(runs=6, seed=seed), points(found), found)[0] for seed in (0, 0, 1))
    assert one == again != other
    assert len(set(one)) == 6
