"""What goes wrong in tuning: present where it was put, absent where it was not, and said."""

import numpy as np
import pytest

from inlay.errors import DataError
from inlay.metrics import symptoms
from inlay.metrics.intervals import Interval
from inlay.metrics.measure import Difference
from tests.metrics.sets import normal, of

PROMPTS = [number // 4 for number in range(80)]
DRAW = np.random.default_rng(0)
BASE = of(DRAW.normal(size=(80, 6)) + 1, PROMPTS, "class prompts, noise 0")
SUBJECT = of(np.array([[3.0, -1.0, 0.0, 0.0, 2.0, 1.0]]))


def changed(rows: np.ndarray):
    return of(rows, PROMPTS, BASE.pairing)


def small_change() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(80, 6)) * 0.05


def test_class_prompts_that_show_the_subject_are_language_drift():
    drifted = symptoms.language_drift(changed(BASE.values + 0.8 * SUBJECT.values), BASE, SUBJECT)
    assert drifted.present
    assert drifted.sentence.startswith("Class prompts now show the subject: tower-I 0.")
    healthy = symptoms.language_drift(changed(BASE.values + small_change()), BASE, SUBJECT)
    assert not healthy.present
    away = symptoms.language_drift(changed(BASE.values - 0.5 * SUBJECT.values), BASE, SUBJECT)
    assert away.change is not None
    assert away.change.clear
    assert not away.present


def test_a_changed_prior_is_seen_and_an_equal_one_is_not():
    other = normal(80, seed=7, shift=1, pairing="class prompts, noise 1")
    assert symptoms.prior_loss(changed(BASE.values + 0.7), other).present
    healthy = symptoms.prior_loss(BASE, other)
    assert not healthy.present
    assert "No change of the prior can be seen: KD-tower" in healthy.sentence


def test_pictures_that_leave_their_prompts_are_prompt_neglect():
    texts = of(BASE.values + DRAW.normal(size=(80, 6)) * 0.5)
    assert symptoms.prompt_neglect(changed(np.roll(BASE.values, 8, axis=0)), BASE, texts).present
    assert not symptoms.prompt_neglect(changed(BASE.values + small_change()), BASE, texts).present


def test_pictures_that_have_become_alike_are_lost_diversity():
    mean = BASE.values.reshape(20, 4, 6).mean(1).repeat(4, 0)
    alike = symptoms.lost_diversity(changed(0.3 * BASE.values + 0.7 * mean), BASE)
    assert alike.present
    assert alike.sentence.startswith("Pictures of one prompt are more alike: diversity")
    assert not symptoms.lost_diversity(changed(BASE.values + small_change()), BASE).present


def test_a_change_that_is_sure_but_small_beside_the_bases_own_spread_is_slight():
    little = symptoms.language_drift(changed(BASE.values + 0.05 * SUBJECT.values), BASE, SUBJECT)
    assert little.change is not None
    assert little.change.clear
    assert little.tolerance is not None
    assert 0 < little.change.value < little.tolerance
    assert (little.degree, little.present) == ("slight", False)
    assert little.sentence.startswith("Class prompts show a little more of the subject: tower-I 0.")
    assert little.sentence.endswith(f"; up to {little.tolerance:.3f} is no more than other noise changes a picture.")


def test_the_tolerance_is_the_standard_deviation_of_one_prompts_pictures():
    # Two prompts far apart, whose pictures lie at 10 +- 1 and 50 +- 3 degrees from the subject's.
    angles = np.radians([9.0, 11.0, 47.0, 53.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    base = of(rows, ["a", "a", "b", "b"], "noise")
    found = symptoms.language_drift(of(rows, ["a", "a", "b", "b"], "noise"), base, of(np.array([[1.0, 0.0]])))
    cosines = np.cos(angles).reshape(2, 2)
    assert found.tolerance == pytest.approx(np.sqrt(cosines.var(1, ddof=1).mean()))
    assert found.degree == "none"
    # Where no prompt is repeated there is only the spread between all pictures.
    alone = of(rows, ["a", "b", "c", "d"], "noise")
    found = symptoms.language_drift(alone, alone, of(np.array([[1.0, 0.0]])))
    assert found.tolerance == pytest.approx(np.cos(angles).std(ddof=1))


def test_the_priors_tolerance_is_the_same_share_of_the_spread_in_the_kernels_space():
    # For one number a picture the kernel (x y + 1)^3 is an inner product of 1, sqrt(3) x, sqrt(3) x^2 and x^3.
    draw = np.random.default_rng(5)
    rows = draw.normal(size=(60, 1))
    prompts = [number // 3 for number in range(60)]
    points = np.concatenate([np.ones_like(rows), np.sqrt(3) * rows, np.sqrt(3) * rows**2, rows**3], 1)
    within = points.reshape(20, 3, 4).var(1, ddof=1).sum(1).mean()
    tuned = of(draw.normal(size=(60, 1)), prompts, "noise 1")
    found = symptoms.prior_loss(tuned, of(rows, prompts, "noise 0"))
    assert found.tolerance == pytest.approx(within)


def test_a_prior_that_has_moved_a_little_is_told_from_one_that_has_gone():
    prompts = [number // 4 for number in range(400)]
    other = of(np.random.default_rng(1).normal(size=(400, 6)), prompts, "noise 1")
    rows = np.random.default_rng(2).normal(size=(400, 6))
    found = {shift: symptoms.prior_loss(of(rows + shift, prompts, "noise 0"), other) for shift in (0, 0.3, 2)}
    assert [one.degree for one in found.values()] == ["none", "slight", "marked"]
    assert found[0.3].sentence.startswith("The prior has changed a little: KD-tower")


def test_diversity_is_held_against_the_spread_of_pairs():
    mean = BASE.values.reshape(20, 4, 6).mean(1).repeat(4, 0)
    found = [symptoms.lost_diversity(changed((1 - part) * BASE.values + part * mean), BASE) for part in (0.1, 0.8)]
    assert [one.degree for one in found] == ["slight", "marked"]
    pairs = []
    for prompt in range(20):
        unit = BASE.unit[4 * prompt : 4 * prompt + 4]
        distances = [1 - unit[one] @ unit[two] for one in range(4) for two in range(one)]
        pairs.append(np.var(distances, ddof=1))
    assert found[0].tolerance == pytest.approx(np.sqrt(np.mean(pairs)))


def test_where_the_base_cannot_say_every_clear_change_counts():
    assert symptoms._degree(Difference("x", 0.1, Interval(0.05, 0.15), True), 1, None) == "marked"
    assert symptoms._degree(Difference("x", 0.1, Interval(0.05, 0.15), True), -1, None) == "none"
    assert symptoms._degree(Difference("x", 0.1, None, True), 1, None) == "none"
    assert symptoms._degree(Difference("x", -0.3, Interval(-0.4, -0.2), True), -1, 0.25) == "slight"
    assert symptoms._degree(Difference("x", -0.3, Interval(-0.4, -0.2), True), -1, 0.15) == "marked"


def test_pairs_must_share_noise_and_samples_must_not():
    for ask in (
        lambda: symptoms.language_drift(normal(80), normal(80), SUBJECT),
        lambda: symptoms.prompt_neglect(normal(80, pairing="a"), normal(80, pairing="b"), BASE),
        lambda: symptoms.lost_diversity(normal(80), BASE),
    ):
        with pytest.raises(DataError, match="same prompts and noise"):
            ask()
    with pytest.raises(DataError, match="other noise"):
        symptoms.prior_loss(BASE, BASE)
