import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import ConfigError
from inlay.train.schedules import LearningRateSchedule, multiplier


def factors(total, **settings):
    schedule = LearningRateSchedule(**settings)
    return [multiplier(schedule, step, total) for step in range(total)]


def test_constant_rises_and_stays():
    assert factors(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert factors(3) == [1.0, 1.0, 1.0]


def test_linear_falls_in_a_line_after_its_warm_up():
    assert factors(6, name="linear", warmup_steps=2) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_cosine_is_half_a_wave_down_to_the_final_factor():
    schedule = LearningRateSchedule(name="cosine", final=0.2)
    for share in (0.0, 0.25, 0.5, 1.0):
        expected = 0.2 + 0.8 * (1 + math.cos(math.pi * share)) / 2
        assert multiplier(schedule, int(share * 1000), 1000) == pytest.approx(expected)


def test_progress_replaces_the_step_count_of_a_run_by_the_clock():
    schedule = LearningRateSchedule(name="linear", warmup_steps=10)
    assert multiplier(schedule, 200, progress=0.25) == pytest.approx(0.75)
    assert multiplier(schedule, 4, progress=0.1) == pytest.approx(0.5 * 0.9)
    assert multiplier(schedule, 200, progress=1.02) == 0


@settings(deadline=None)
@given(
    name=st.sampled_from(["constant", "linear", "cosine"]),
    total=st.integers(1, 500),
    warmup_share=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_factors_rise_then_fall_within_bounds(name, total, warmup_share, final):
    warmup = int(warmup_share * total)
    values = factors(total, name=name, warmup_steps=warmup, final=final)
    assert all(0 < value <= 1 for value in values)
    peak = max(0, warmup - 1)
    assert values[peak] == 1
    assert values[:peak] == sorted(values[:peak])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert min(values[peak:]) >= final - 1e-12


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_warm_up_longer_than_the_run_is_refused(name):
    with pytest.raises(ConfigError, match="warmup_steps is 11, longer than the run of 10 steps"):
        multiplier(LearningRateSchedule(name=name, warmup_steps=11), 0, 10)


def test_a_falling_schedule_needs_to_know_how_far_it_is():
    with pytest.raises(ValueError, match="needs total_steps or progress"):
        multiplier(LearningRateSchedule(name="cosine"), 3)
