"""Intervals by leaving groups out: closed forms, Student's table, and how often they cover."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import DataError
from inlay.metrics import intervals
from inlay.metrics.intervals import group, jackknife, of_mean, of_share, student_quantile, wilson


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    # Student's table, as printed in any textbook
    [
        (0.975, 1, 12.706),
        (0.975, 4, 2.776),
        (0.95, 9, 1.833),
        (0.995, 19, 2.861),
        (0.975, 120, 1.980),
        (0.5, 7, 0.0),
        (0.975, math.inf, 1.960),
    ],
)
def test_quantiles_are_those_of_the_table(probability, freedom, quantile):
    assert student_quantile(probability, freedom) == pytest.approx(quantile, abs=6e-4)


def test_a_mean_of_single_pictures_has_students_interval():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    found = of_mean(values, group(4))
    # mean 3.5, standard error sqrt(sum of squares / (n (n - 1))) = sqrt(21 / 12)
    assert found.variance == pytest.approx(21 / 12)
    interval = found.interval()
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(
        (3.5 - 3.182446 * 1.322876, 3.5 + 3.182446 * 1.322876), abs=1e-4
    )


def test_the_short_way_for_means_is_the_long_way():
    values = np.random.default_rng(0).normal(size=57)
    groups = group(57, [number // 3 for number in range(57)])
    long = jackknife(lambda mask: float(values[mask].mean()), groups)
    short = of_mean(values, groups)
    assert short.value == pytest.approx(long.value)
    assert short.left_out == pytest.approx(long.left_out)
    assert short.sizes == long.sizes


def test_bias_of_order_one_over_n_is_removed():
    values = np.random.default_rng(0).normal(size=20)
    biased = jackknife(lambda mask: float(values[mask].var()), group(20))
    assert biased.corrected == pytest.approx(values.var(ddof=1))


def test_groups_of_unequal_size_leave_a_mean_unbiased():
    values = np.random.default_rng(0).normal(size=30)
    groups = group(30, ["a"] * 17 + ["b"] * 4 + ["c"] * 9)
    assert of_mean(values, groups).corrected == pytest.approx(values.mean())


def test_pictures_of_one_prompt_stay_together():
    groups = group(6, ["x", "y", "x", "z", "y", "x"])
    assert groups.tolist() == [0, 1, 0, 2, 1, 0]
    assert group(50, [number // 2 for number in range(50)]).max() == intervals.GROUPS - 1
    assert group(5, ["one prompt"] * 5).tolist() == [0, 1, 2, 3, 4]


def test_labels_of_another_number_are_refused():
    with pytest.raises(DataError, match="given: 2"):
        group(3, ["a", "b"])


def test_no_interval_where_none_can_be_seen():
    assert of_mean(np.array([1.0, 2.0]), group(2)).interval() is None
    assert of_mean(np.ones(10), group(10)).interval() is None
    assert of_mean(np.array([3.0]), group(1)).interval() is None


def test_wilson_is_the_published_formula():
    # Newcombe 1998, table I: 81 of 263 has the score interval 0.2553 to 0.3662, 0 of 20 has 0 to 0.1611.
    found = wilson(81 / 263, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    none = wilson(0.0, 20)
    assert (none.low, none.high) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_shares_that_agree_within_prompts_count_as_few():
    alike = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0], 10)
    clusters = np.repeat(np.arange(8), 10).tolist()
    grouped = of_share(of_mean(alike, group(80, clusters)), 8)
    single = of_share(of_mean(alike, group(80)), 80)
    assert grouped.high - grouped.low > 2 * (single.high - single.low)
    certain = of_share(of_mean(np.ones(80), group(80, clusters)), 8)
    assert (certain.low, certain.high) == (wilson(1.0, 8).low, wilson(1.0, 8).high)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=3, max_size=60), st.floats(-5, 5), st.floats(0.1, 10))
def test_intervals_move_and_scale_with_the_values(values, shift, scale):
    values = np.array(values)
    before = of_mean(values, group(len(values))).interval()
    after = of_mean(values * scale + shift, group(len(values))).interval()
    if before is None or after is None or before.high - before.low < 1e-6:
        return
    assert after.low == pytest.approx(before.low * scale + shift, rel=1e-6, abs=1e-6)
    assert after.high == pytest.approx(before.high * scale + shift, rel=1e-6, abs=1e-6)


def test_intervals_cover_as_often_as_they_say():
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        prompts = np.repeat(draw.normal(size=30), 4)  # pictures of one prompt resemble each other
        interval = of_mean(prompts + draw.normal(size=120), group(120, np.repeat(np.arange(30), 4).tolist())).interval()
        assert interval is not None
        hits += interval.low <= 0 <= interval.high
    assert 0.915 <= hits / 400 <= 0.985  # 0.95 within three binomial standard deviations
