"""Agreement with R, which computed tests/oracles/statistics_r.json by statistics.R, and with the publication."""

import json
from pathlib import Path

import numpy as np
import pytest

from inlay.study.statistics.adjust import benjamini_hochberg, holm
from inlay.study.statistics.anova import anova, one_way, welch
from inlay.study.statistics.assumptions import equal_variances, normality
from inlay.study.statistics.comparisons import games_howell, tukey
from inlay.study.statistics.effects import noncentrality
from inlay.study.statistics.mixed import mixed
from inlay.study.statistics.power import anova_power, detectable, pair_power, seeds_needed
from inlay.study.statistics.ranks import kruskal
from inlay.study.statistics.sample import make_sample

ORACLES = Path(__file__).parent.parent / "oracles"
CASES = json.loads((ORACLES / "statistics.json").read_text())
R = json.loads((ORACLES / "statistics_r.json").read_text())


def sample(case: str, response: str, transform=np.asarray):
    data = CASES[case]["data"]
    return make_sample(transform(data[response]), {name: data[name] for name in data if name != response})


@pytest.mark.parametrize("factor", ["input", "output"])
def test_the_publication_s_analysis_of_its_twenty_positions_comes_out(factor):
    expected = CASES["positions"]["one_way"][factor]
    found = one_way(sample("positions", "response"), factor)
    assert found.freedom == expected["freedom"][0]
    assert found.f == pytest.approx(expected["f"], abs=0.05)
    assert found.p == pytest.approx(expected["p"], rel=0.02)
    assert found.effect.eta_squared == pytest.approx(expected["eta_squared"], abs=0.005)


@pytest.mark.parametrize("factor", ["input", "output"])
def test_one_way_with_effect_sizes_agrees_with_r(factor):
    expected = R["positions"][factor]
    positions = sample("positions", "response")
    found = one_way(positions, factor)
    assert (found.f, found.p) == pytest.approx((expected["f"], expected["p"]))
    assert found.effect.eta_squared == pytest.approx(expected["eta_squared"])
    assert max(0.0, found.effect.partial_omega_squared) == pytest.approx(expected["omega_squared"])
    interval = noncentrality(found.f, *expected["freedom"])
    assert [interval.low, interval.high] == pytest.approx(expected["noncentrality"], rel=1e-4)
    assert kruskal(positions, factor) == pytest.approx(tuple(expected["kruskal"]))


@pytest.mark.parametrize("kind", ["II", "III"])
@pytest.mark.parametrize(
    ("case", "response", "transform"), [("kidney", "days", np.log1p), ("moore", "conformity", np.asarray)]
)
def test_unbalanced_tables_agree_with_car(case, response, transform, kind):
    expected = R[case][kind]
    found = anova(sample(case, response, transform), kind=kind)
    order = [expected["terms"].index(":".join(test.term)) for test in found.tests]
    assert sorted(order) == [0, 1, 2]
    for name in ("sum_of_squares", "freedom", "f", "p"):
        assert [getattr(test, name) for test in found.tests] == pytest.approx([expected[name][i] for i in order])
    assert [found.error.sum_of_squares, found.error.freedom] == pytest.approx(expected["error"])


def test_checks_of_assumptions_agree_with_r():
    kidney, expected = sample("kidney", "days", np.log1p), R["kidney"]
    shape = normality(anova(kidney))
    assert [shape.statistic, shape.p] == pytest.approx(expected["shapiro"], rel=1e-4)
    scatter = equal_variances(anova(kidney, [("duration",)]), "duration")
    assert [scatter.statistic, scatter.p] == pytest.approx(expected["levene"])


def test_one_way_tests_agree_with_r():
    plants, expected = sample("plant_growth", "weight"), R["plant_growth"]
    found = one_way(plants, "group")
    assert (found.f, found.p) == pytest.approx((expected["aov"]["f"], expected["aov"]["p"]))
    assert kruskal(plants, "group") == pytest.approx(tuple(expected["kruskal"].values()))
    f, _, freedom, p = welch(plants, "group")
    assert (f, freedom, p) == pytest.approx(tuple(expected["welch"].values()))


def test_tukey_agrees_with_r_in_a_model_of_two_factors():
    pairs = {
        frozenset((found.first, found.second)): found
        for found in tukey(sample("warpbreaks", "breaks"), [("wool",), ("tension",)], "tension")
    }
    for first, second, value, low, high, p in R["warpbreaks"]["tukey"]:
        found = pairs[frozenset((first, second))]
        sign = 1 if found.first == first else -1
        assert sign * found.value == pytest.approx(value)
        assert sorted([sign * found.bounds.low, sign * found.bounds.high]) == pytest.approx([low, high], abs=1e-4)
        assert found.p == pytest.approx(p, abs=1e-6)


def test_games_howell_agrees_with_rstatix():
    pairs = {
        frozenset((found.first, found.second)): found
        for found in games_howell(sample("stress", "reduction"), "treatment", level=0.99)
    }
    for first, second, value, low, high, p in R["stress"]["games_howell"]:
        found = pairs[frozenset((first, second))]
        sign = 1 if found.first == second else -1  # rstatix prints the second less the first
        assert sign * found.value == pytest.approx(value)
        assert sorted([sign * found.bounds.low, sign * found.bounds.high]) == pytest.approx([low, high], abs=1e-4)
        assert found.p == pytest.approx(p, abs=1e-6)


def test_random_effects_agree_with_lme4():
    found = mixed(sample("pastes", "strength"), [], ["batch", "sample"], fewest=2)
    assert found.deviations == pytest.approx(R["pastes"]["deviations"], rel=1e-3)


def test_a_fixed_factor_beside_a_random_one_agrees_with_lme4():
    found, expected = mixed(sample("sleepstudy", "reaction"), [("days",)], ["subject"]), R["sleepstudy"]
    assert found.deviations == pytest.approx(expected["deviations"], rel=1e-4)
    (test,) = found.tests
    assert (test.freedom, test.error_freedom) == (expected["wald"]["freedom"], 180 - 10 - 17)
    assert test.f * test.freedom == pytest.approx(expected["wald"]["statistic"], rel=1e-4)


def test_power_agrees_with_r():
    expected = R["power"]
    assert pair_power(1, 1, expected["pair"]["seeds"]) == pytest.approx(expected["pair"]["power"], abs=1e-6)
    assert seeds_needed(1, 1, power=expected["needed"]["power"]) == int(np.ceil(expected["needed"]["n"]))
    groups, each, effect, power = expected["anova"].values()
    assert anova_power(effect, groups - 1, groups * (each - 1), groups * each) == pytest.approx(power)


def test_adjusted_p_values_agree_with_multtest():
    raw, expected = CASES["multtest"]["data"]["raw"], R["multtest"]
    assert holm(raw) == pytest.approx(expected["holm"])
    assert benjamini_hochberg(raw) == pytest.approx(expected["benjamini_hochberg"])


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
