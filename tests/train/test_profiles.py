import numpy as np
import pytest
import torch

from inlay.train.ema import PowerEMA
from inlay.train.profiles import LONGEST, Profile, coefficients, decay, exponent, products


@pytest.mark.parametrize("length", [0.001, 0.05, 0.1, 0.2, LONGEST])
def test_the_exponent_gives_a_profile_of_that_standard_deviation(length):
    gamma = exponent(length)
    assert gamma > 0
    # Moments of (gamma + 1) s^gamma on (0, 1].
    mean = (gamma + 1) / (gamma + 2)
    variance = (gamma + 1) / (gamma + 3) - mean**2
    assert np.sqrt(variance) == pytest.approx(length, rel=1e-6)


def test_published_exponents():
    # Section 3.1 of 2312.02696: sigma_rel 0.05 and 0.10 are gamma 16.97 and 6.94.
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.3, float("nan")])
def test_lengths_that_no_profile_has_are_refused(length):
    with pytest.raises(ValueError, match="sigma_rel must be above 0"):
        exponent(length)


def test_each_step_counts_by_the_integral_of_the_profile_over_it():
    value = torch.nn.Parameter(torch.zeros(40))
    average = PowerEMA([value], [0.1, 0.25])
    for step in range(40):
        with torch.no_grad():
            value.zero_()
            value[step] = 1
        average.update()
    edges = np.arange(41) / 40
    for which, length in enumerate((0.1, 0.25)):
        expected = np.diff(edges ** (exponent(length) + 1))
        np.testing.assert_allclose(average.values(which)[0].numpy(), expected, atol=2e-7)


def test_products_are_those_of_numerical_integration():
    profiles = [Profile(0.05, 700), Profile(0.1, 1000), Profile(0.2, 300), Profile(0.28, 1000)]
    times = (np.arange(400_000) + 0.5) / 400
    heights = []
    for length, step in profiles:
        gamma = exponent(length)
        heights.append(np.where(times <= step, (gamma + 1) / step * (times / step) ** gamma, 0))
    numeric = np.array([[np.sum(one * other) / 400 for other in heights] for one in heights])
    latest = np.array([[max(one.step, other.step) for other in profiles] for one in profiles])
    np.testing.assert_allclose(products(profiles, profiles), numeric * latest, rtol=1e-4)


def test_a_stored_profile_is_itself():
    stored = [Profile(length, step) for step in (100, 200, 300) for length in (0.05, 0.1)]
    factors, distance = coefficients(stored, Profile(0.1, 300))
    assert factors.tolist() == [0, 0, 0, 0, 0, 1]
    assert distance == 0


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15, 0.25])
def test_others_come_near(length):
    stored = [Profile(each, step) for step in range(1000, 16_001, 1000) for each in (0.05, 0.1)]
    factors, distance = coefficients(stored, Profile(length, 16_000))
    assert factors.sum() == pytest.approx(1, abs=1e-6)
    # What is said of the distance is what it is, step by step.
    times = np.arange(16_001, dtype=np.float64)

    def shares(profile):
        power = exponent(profile.sigma_rel) + 1
        return np.diff(np.minimum(times / profile.step, 1) ** power)

    wanted = shares(Profile(length, 16_000))
    made = sum(factor * shares(profile) for factor, profile in zip(factors, stored, strict=True))
    found = np.linalg.norm(made - wanted) / np.linalg.norm(wanted)
    assert found == pytest.approx(distance, abs=2e-3)
    assert distance < 0.12


def test_more_snapshots_come_nearer():
    distances = []
    for count in (2, 8, 32):
        stored = [Profile(each, 3200 * (n + 1) // count) for n in range(count) for each in (0.05, 0.1)]
        distances.append(coefficients(stored, Profile(0.03, 3200))[1])
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] / 3


def test_nothing_stored_is_refused():
    with pytest.raises(ValueError, match="no stored averages"):
        coefficients([], Profile(0.1, 10))


def test_the_first_update_forgets_the_initial_weights():
    assert decay(0.1, 1) == 0
