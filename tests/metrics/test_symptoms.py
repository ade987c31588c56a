"""What goes wrong in tuning: present where it was put, absent where it was not, and said."""

import numpy as np
import pytest

from inlay.errors import DataError
from inlay.metrics import symptoms
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
    drifted = symptoms.language_drift(changed(BASE.values + 0.5 * SUBJECT.values), BASE, SUBJECT)
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
