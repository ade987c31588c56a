"""Identities and traps of the tests: balance, empty cells, exact fits, agreement with scipy and statsmodels."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as formula
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec
from statsmodels.stats.anova import anova_lm

from inlay.errors import ConfigError, DataError
from inlay.study.statistics.adjust import benjamini_hochberg, holm
from inlay.study.statistics.anova import anova, one_way
from inlay.study.statistics.assumptions import checks
from inlay.study.statistics.comparisons import games_howell, means, tukey
from inlay.study.statistics.effects import noncentrality
from inlay.study.statistics.mixed import across, mixed
from inlay.study.statistics.permutation import freedman_lane
from inlay.study.statistics.power import anova_power, detectable, pair_power, seeds_needed
from inlay.study.statistics.ranks import aligned_ranks, kruskal
from inlay.study.statistics.sample import make_sample, sample_of
from inlay.study.table import Row
from tests.study.simulate import grid, normal, without

A, B = ("a",), ("b",)


@pytest.fixture
def generator():
    return np.random.default_rng(1)


def test_types_agree_in_a_balanced_design_and_differ_in_an_unbalanced_one(generator):
    balanced = normal(grid([3, 2], 4), generator, {"a0": 1.0})
    second, third = anova(balanced, kind="II"), anova(balanced, kind="III")
    assert second.balanced
    for one, other in zip(second.tests, third.tests, strict=True):
        assert one.sum_of_squares == pytest.approx(other.sum_of_squares)
    parts = sum(test.sum_of_squares for test in second.tests) + second.error.sum_of_squares
    assert parts == pytest.approx(second.total)
    uneven = without(balanced, [0, 1, 5])
    assert not anova(uneven).balanced
    assert anova(uneven).test("a").f != pytest.approx(anova(uneven, kind="III").test("a").f, rel=1e-3)


def test_unbalanced_tables_agree_with_statsmodels(generator):
    sample = without(normal(grid([3, 2, 2], 3), generator, {"a1": 1.0, "b0": 0.5}), [0, 3, 4, 20, 31])
    frame = pd.DataFrame({name: [sample.levels[name][code] for code in sample.codes[name]] for name in "abc"})
    frame["y"] = sample.response
    model = formula.ols("y ~ (C(a, Sum) + C(b, Sum) + C(c, Sum)) ** 2", frame).fit()
    for kind in ("II", "III"):
        table = anova_lm(model, typ=kind)
        expected = table["F"].drop(index=["Intercept", "Residual"], errors="ignore")
        assert [test.f for test in anova(sample, kind=kind).tests] == pytest.approx(expected.tolist(), rel=1e-6)


def test_an_empty_cell_makes_no_interaction_where_there_is_none(generator):
    """Additive numbers with a cell left out: textbook formulas find an interaction here, with F above 10."""
    factors = grid([3, 3], 3)
    response = [10.0 * int(a[1]) + 4.0 * int(b[1]) for a, b in zip(factors["a"], factors["b"], strict=True)]
    noise = generator.standard_normal(len(response))
    sample = make_sample(np.array(response) + 0.1 * noise, factors)
    hole = without(sample, np.flatnonzero((sample.codes["a"] == 2) & (sample.codes["b"] == 2)))
    table = anova(hole)
    interaction = table.test("a", "b")
    assert interaction.freedom == 3
    assert interaction.p > 0.05
    assert "3 of 4 degrees of freedom" in interaction.note
    assert table.missing == ((("a", "b"), (("a2", "b2"),)),)
    assert table.test("a").p < 1e-10


def test_type_three_is_refused_where_cells_are_empty(generator):
    sample = normal(grid([3, 3], 3), generator)
    hole = without(sample, np.flatnonzero((sample.codes["a"] == 2) & (sample.codes["b"] == 2)))
    refused = anova(hole, kind="III").test("a")
    assert refused.f is None
    assert "type III means nothing" in refused.note


def test_a_factor_that_cannot_be_told_from_another_has_no_test(generator):
    sample = make_sample(generator.standard_normal(8), {"a": list("xxxxyyyy"), "b": list("uuuuvvvv")})
    for test in anova(sample, [A, B]).tests:
        assert (test.freedom, test.f, test.note) == (0, None, "cannot be told from other terms in these data")


def test_an_exact_fit_has_no_test_rather_than_an_infinite_one():
    sample = make_sample([1.0, 1.0, 2.0, 2.0], {"a": list("xxyy")})
    assert one_way(sample, "a").p is None
    constant = make_sample([3.0] * 4, {"a": list("xxyy")})
    assert one_way(constant, "a").p is None


def test_bad_samples_are_refused(generator):
    with pytest.raises(DataError, match="not finite"):
        make_sample([1.0, float("nan")], {"a": ["x", "y"]})
    with pytest.raises(DataError, match="2 levels for 3"):
        make_sample([1.0, 2.0, 3.0], {"a": ["x", "y"]})
    with pytest.raises(ConfigError, match="only the level 'x'"):
        one_way(make_sample([1.0, 2.0], {"a": ["x", "x"]}), "a")
    with pytest.raises(ConfigError, match="no degrees of freedom"):
        anova(normal(grid([3, 2], 1), generator))
    with pytest.raises(ConfigError, match="no factor is called 'c'"):
        anova(normal(grid([3, 2], 2), generator), [("c",)])


def test_rows_without_a_result_are_left_out_and_unknown_names_refused():
    rows = [
        Row("1", {"method": "lora"}, "cat", 0, "done", metrics={"likeness": 0.5}),
        Row("2", {"method": "full"}, "cat", 0, "failed", "out of memory"),
        Row("3", {"method": "full"}, "cat", 1, "done", "no class pictures", metrics={"likeness": None}),
        Row("4", {"method": "full"}, "cat", 1, "done", metrics={"likeness": 0.7}),
    ]
    sample = sample_of(rows, "likeness", ["method", "task", "seed"])
    assert sample.response.tolist() == [0.5, 0.7]
    assert sample.levels == {"method": ("lora", "full"), "task": ("cat",), "seed": (0, 1)}
    with pytest.raises(ConfigError, match="the metrics there are likeness"):
        sample_of(rows, "fid", ["method"])
    with pytest.raises(ConfigError, match="no factor is called 'rank'; there are method, seed, task"):
        sample_of(rows, "likeness", ["rank"])


def test_noncentrality_bounds_are_where_the_observed_f_is_just_not_surprising():
    found = noncentrality(5.0, 4, 45)
    assert stats.ncf.cdf(5.0, 4, 45, found.low) == pytest.approx(0.975, abs=1e-6)
    assert stats.ncf.cdf(5.0, 4, 45, found.high) == pytest.approx(0.025, abs=1e-6)
    assert noncentrality(0.1, 4, 45).low == 0
    below, above = noncentrality(0.99e6 / 4, 4, 45), noncentrality(1.01e6 / 4, 4, 45)  # where the formula changes
    assert above.low / below.low == pytest.approx(1.01 / 0.99, rel=2e-3)
    assert above.high / below.high == pytest.approx(1.01 / 0.99, rel=2e-3)
    assert noncentrality(1e15, 4, 45).high < 1e17


def test_tukey_of_one_factor_agrees_with_scipy_at_unequal_counts(generator):
    sample = without(normal(grid([4], 6), generator, {"a2": 2.0}), [0, 1, 13])
    expected = stats.tukey_hsd(*sample.groups("a"))
    bounds = expected.confidence_interval(0.95)
    for found in tukey(sample, [A], "a"):
        first, second = (sample.levels["a"].index(level) for level in (found.first, found.second))
        assert found.value == pytest.approx(expected.statistic[first, second])
        assert found.p == pytest.approx(expected.pvalue[first, second], abs=1e-6)
        assert found.bounds.low == pytest.approx(bounds.low[first, second], abs=1e-5)


def test_means_weigh_the_levels_of_other_factors_equally_and_admit_what_is_unknown(generator):
    sample = without(normal(grid([2, 2], 5), generator, {"b1": 10.0}), [15, 16, 17, 18])  # a1 has one of b1
    found = {mean.level: mean for mean in means(sample, [A, B], "a")}
    assert abs(found["a0"].value - found["a1"].value) < 3  # the raw means differ by almost 4
    assert found["a1"].count == 6
    hole = without(sample, [15])
    unknown = means(hole, [A, B, ("a", "b")], "a")
    assert unknown[0].value is not None
    assert unknown[1].value is None


def test_means_of_runs_that_are_all_zero_are_zero(generator):
    factors = grid([3, 3], 3)
    shares = [generator.uniform(0.1, 0.5) if level == "a2" else 0.0 for level in factors["a"]]
    sample = make_sample(shares, factors)
    found = {mean.level: mean.value for mean in means(sample, [A, B], "a")}
    assert found["a0"] == found["a1"] == 0.0 < found["a2"]
    assert [one.value for one in tukey(sample, [A, B], "a") if one.second == "a1"] == [0.0]


def test_games_howell_leaves_single_observations_undetermined(generator):
    sample = make_sample([1.0, 2.0, 3.0, 4.0, 9.0], {"a": list("xxyyz")})
    p = {(found.first, found.second): found.p for found in games_howell(sample, "a")}
    assert p[("x", "y")] is not None
    assert p[("x", "z")] is None


def test_assumption_checks_see_what_is_broken(generator):
    factors = grid([3], 40)
    fine = {check.name.split()[0]: check.p for check in checks(anova(normal(factors, generator)))}
    assert fine["residuals"] > 0.01
    assert fine["equal"] > 0.01
    heavy = make_sample(generator.standard_t(1, 120), factors)
    assert checks(anova(heavy))[0].p < 1e-6
    wide = make_sample(generator.standard_normal(120) * np.repeat([1, 1, 6], 40), factors)
    assert checks(anova(wide))[1].p < 1e-4
    few = checks(anova(normal(grid([3], 2), generator)))[1]
    assert few.p is None
    assert "fewer than three" in few.note


def test_aligned_ranks_find_an_interaction_that_ranks_of_the_response_would_spread(generator):
    factors = grid([2, 2], 15)
    cross = [1.5 if (a == "a0") == (b == "b0") else -1.5 for a, b in zip(*factors.values(), strict=True)]
    sample = make_sample(np.exp(np.array(cross) + generator.standard_normal(60)), factors)
    terms = [A, B, ("a", "b")]
    assert aligned_ranks(sample, terms, ("a", "b")).p < 1e-4
    assert kruskal(sample, "a")[2] > 0.01


def test_permutations_agree_with_f_on_well_behaved_numbers_and_repeat(generator):
    sample = without(normal(grid([3, 2], 6), generator, {"a1": 0.8}), [0, 7])
    for term in (A, B, ("a", "b")):
        exact = anova(sample).test(*term).p
        found = freedman_lane(sample, [A, B, ("a", "b")], term)
        assert found == pytest.approx(exact, abs=0.015)
        assert found == freedman_lane(sample, [A, B, ("a", "b")], term)


def test_mixed_model_agrees_with_statsmodels_and_in_balance_with_a_fixed_block(generator):
    factors = grid([3, 12], 1)
    response = generator.standard_normal(36) + np.array([{"a1": 1.0}.get(level, 0.0) for level in factors["a"]])
    response += 2 * np.tile(generator.standard_normal(12), 3)
    sample = make_sample(response, {"a": factors["a"], "seed": factors["b"]})
    found = mixed(sample, [A], ["seed"])
    assert found.fixed == ()
    block = anova(sample, [A, ("seed",)]).test("a")
    assert found.tests[0].f == pytest.approx(block.f, rel=1e-4)
    assert found.tests[0].error_freedom == 22
    seeds = np.eye(12)[sample.codes["seed"]]
    names = [[str(seed) for seed in range(12)]]
    columns = np.column_stack([np.ones(36), np.array(factors["a"]) == "a0", np.array(factors["a"]) == "a1"]).astype(
        float
    )
    peer = MixedLM(response, columns, np.zeros(36), exog_vc=VCSpec(["seed"], [names], [[seeds]])).fit()
    assert found.deviations["seed"] == pytest.approx(float(np.sqrt(peer.vcomp[0])), rel=2e-3)
    assert found.deviations["residual"] == pytest.approx(float(np.sqrt(peer.scale)), rel=2e-3)


def test_few_seeds_are_a_fixed_block(generator):
    sample = normal(grid([3, 4], 2), generator)
    assert mixed(sample, [A], ["b"]) is None
    both = normal(grid([3, 4, 11], 1), generator)
    assert mixed(both, [A], ["b", "c"]).fixed == ("b",)


def test_a_difference_that_turns_with_the_subject_is_not_claimed_for_others(generator):
    factors = grid([2, 4], 10)
    turning = {"b0": 3.0, "b1": -3.0, "b2": 3.0, "b3": -1.0}
    response = [turning[b] if a == "a0" else 0.0 for a, b in zip(*factors.values(), strict=True)]
    sample = make_sample(np.array(response) + generator.standard_normal(80), factors)
    assert anova(sample).test("a").p < 0.05
    assert across(sample, "a", "b").p > 0.3
    assert across(make_sample([1.0, 2.0], {"a": ["x", "y"], "b": ["u", "u"]}), "a", "b") is None


def test_power_and_its_inverses_agree():
    seeds = seeds_needed(0.5, 1.0)
    assert seeds == 64  # the textbook's figure (Cohen 1988, table 2.4.1)
    assert pair_power(0.5, 1.0, seeds) >= 0.8 > pair_power(0.5, 1.0, seeds - 1)
    assert detectable(1.0, 64) == pytest.approx(0.5, abs=0.005)
    assert detectable(1.0, 1) is None
    assert seeds_needed(1e-9, 1.0) is None
    assert seeds_needed(50.0, 1.0) == 2
    assert pair_power(0.5, 1.0, 64, comparisons=10) < 0.6
    assert anova_power(0.25, 3, 176, 180) == pytest.approx(0.8, abs=0.02)  # Cohen 1988: 45 a group of four
    with pytest.raises(ConfigError, match="must be other than 0"):
        seeds_needed(0.0, 1.0)


def test_adjusted_p_values_keep_order_and_bounds():
    p = [0.9, 0.001, 0.04, 0.04]
    assert holm(p) == pytest.approx([0.9, 0.004, 0.12, 0.12])
    assert benjamini_hochberg(p) == pytest.approx([0.9, 0.004, 4 * 0.04 / 3, 4 * 0.04 / 3])
    assert holm([]) == []


def test_many_pairs_have_the_p_values_of_single_ones(generator):
    many = normal(grid([14], 4), generator, {"a3": 2.0, "a5": 1.0})  # 91 pairs
    found = tukey(many, [A], "a")
    expected = stats.tukey_hsd(*many.groups("a")).pvalue
    for one in found:
        first, second = (many.levels["a"].index(level) for level in (one.first, one.second))
        assert one.p == pytest.approx(expected[first, second], rel=2e-3, abs=1e-6)


def test_permutations_that_the_model_fits_exactly_do_no_harm():
    sample = make_sample([1e6, -2e6, 3.0, 0.5, 0.5], {"a": list("xxyyy"), "b": list("uvuvv")})
    assert 0 < freedman_lane(sample, [A, B], A, draws=199) <= 1
