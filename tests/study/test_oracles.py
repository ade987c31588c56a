"""Agreement with R, car, rstatix, lme4, pwr and the publication: tests/oracles/statistics.json names each origin."""

import json
from pathlib import Path

import numpy as np
import pytest

from inlay.study.statistics.adjust import benjamini_hochberg, holm
from inlay.study.statistics.anova import anova, one_way, welch
from inlay.study.statistics.comparisons import games_howell, tukey
from inlay.study.statistics.mixed import mixed
from inlay.study.statistics.power import detectable, pair_power, seeds_needed
from inlay.study.statistics.ranks import kruskal
from inlay.study.statistics.sample import make_sample

ORACLE = json.loads((Path(__file__).parent.parent / "oracles" / "statistics.json").read_text())


def sample(case: str, response: str, transform=np.asarray):
    data = ORACLE[case]["data"]
    return make_sample(transform(data[response]), {name: data[name] for name in data if name != response})


@pytest.mark.parametrize("factor", ["input", "output"])
def test_the_publication_s_analysis_of_its_twenty_positions_comes_out(factor):
    expected = ORACLE["positions"]["one_way"][factor]
    found = one_way(sample("positions", "response"), factor)
    assert found.freedom == expected["freedom"][0]
    assert found.f == pytest.approx(expected["f"], abs=0.05)
    assert found.p == pytest.approx(expected["p"], rel=0.02)
    assert found.effect.eta_squared == pytest.approx(expected["eta_squared"], abs=0.005)


@pytest.mark.parametrize(
    ("case", "response", "transform", "kind"),
    [
        ("kidney", "days", np.log1p, "II"),
        ("kidney", "days", np.log1p, "III"),
        ("moore", "conformity", np.asarray, "II"),
    ],
)
def test_unbalanced_tables_agree_with_r(case, response, transform, kind):
    expected = ORACLE[case][kind]
    found = anova(sample(case, response, transform), kind=kind)
    assert [test.freedom for test in found.tests] == expected["freedom"]
    for name in ("sum_of_squares", "f"):
        assert [getattr(test, name) for test in found.tests] == pytest.approx(expected[name], rel=1e-5)
    assert [test.p for test in found.tests] == pytest.approx(expected["p"], abs=6e-7)
    assert [found.error.sum_of_squares, found.error.freedom] == pytest.approx(expected["error"])


def test_one_way_tests_agree_with_r():
    plants, expected = sample("plant_growth", "weight"), ORACLE["plant_growth"]
    found = one_way(plants, "group")
    assert (found.f, found.p) == pytest.approx((expected["aov"]["f"], expected["aov"]["p"]), rel=2e-3)
    assert kruskal(plants, "group") == pytest.approx(tuple(expected["kruskal"].values()), rel=1e-3)
    f, _, freedom, p = welch(plants, "group")
    assert (f, freedom, p) == pytest.approx(tuple(expected["welch"].values()), rel=1e-3)


def test_tukey_agrees_with_r_in_a_model_of_two_factors():
    pairs = {
        frozenset((found.first, found.second)): found
        for found in tukey(sample("warpbreaks", "breaks"), [("wool",), ("tension",)], "tension")
    }
    for first, second, value, low, high, p in ORACLE["warpbreaks"]["tukey"]:
        found = pairs[frozenset((first, second))]
        sign = 1 if found.first == first else -1
        assert sign * found.value == pytest.approx(value, rel=1e-6)
        assert sorted([sign * found.bounds.low, sign * found.bounds.high]) == pytest.approx([low, high], abs=1e-4)
        assert found.p == pytest.approx(p, abs=1e-6)


def test_games_howell_agrees_with_rstatix():
    pairs = {
        frozenset((found.first, found.second)): found
        for found in games_howell(sample("stress", "reduction"), "treatment", level=0.99)
    }
    for first, second, value, low, high, p in ORACLE["stress"]["games_howell"]:
        found = pairs[frozenset((first, second))]
        sign = 1 if found.first == second else -1  # rstatix prints the second less the first
        assert sign * found.value == pytest.approx(value)
        assert sorted([sign * found.bounds.low, sign * found.bounds.high]) == pytest.approx([low, high], abs=1e-4)
        assert found.p == pytest.approx(p, rel=3e-3)


def test_random_effects_agree_with_lme4():
    found = mixed(sample("pastes", "strength"), [], ["batch", "sample"], fewest=2)
    assert found.deviations == pytest.approx(ORACLE["pastes"]["deviations"], rel=1e-3)


def test_power_agrees_with_r():
    expected = ORACLE["power"]
    assert pair_power(1, 1, expected["pair"]["seeds"]) == pytest.approx(expected["pair"]["power"], abs=1e-6)
    assert seeds_needed(1, 1, power=expected["needed"]["power"]) == int(np.ceil(expected["needed"]["n"]))


def test_adjusted_p_values_agree_with_multtest():
    expected = ORACLE["multtest"]
    assert holm(expected["raw"]) == pytest.approx(expected["holm"])
    assert benjamini_hochberg(expected["raw"]) == pytest.approx(expected["benjamini_hochberg"])


@pytest.mark.parametrize(
    ("difference", "seeds", "comparisons", "share"),
    # Of 40 million simulated studies: numpy, seed 0, |normal(difference) / sqrt(chi-squared / freedom)| beyond the
    # critical value.
    [(60.0, 2, 190, 0.61227), (12.0, 3, 190, 0.78340), (1.5, 10, 1, 0.88698)],
)
def test_power_where_few_seeds_meet_many_pairs(difference, seeds, comparisons, share):
    assert pair_power(difference, 1.0, seeds, comparisons) == pytest.approx(share, abs=2e-4)


def test_more_seeds_show_smaller_differences_also_among_many_pairs():
    found = [detectable(1.0, seeds, comparisons=190) for seeds in (2, 3, 4, 5, 10, 20, 50)]
    assert found == sorted(found, reverse=True)
    for seeds, difference in zip((2, 3, 4, 5, 10, 20, 50), found, strict=True):
        assert pair_power(difference, 1.0, seeds, 190) == pytest.approx(0.8, abs=1e-6)
