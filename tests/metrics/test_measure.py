"""Figures with their origin: what is compared, what is refused, paired differences."""

import json
from dataclasses import replace

import numpy as np
import pytest

from inlay.errors import DataError
from inlay.metrics.alignment import image_similarity
from inlay.metrics.kernels import kid
from inlay.metrics.measure import Features, difference, restore
from tests.metrics.sets import normal, of


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(60, 6)) + 1
    reference = normal(10, seed=5, shift=1)
    one, two = (of(shared + 0.1 * draw.normal(size=(60, 6)), pairing="20 prompts, noise 0") for _ in range(2))
    paired = difference(image_similarity(one, reference), image_similarity(two, reference))
    alone = difference(
        image_similarity(replace(one, pairing=""), reference), image_similarity(replace(two, pairing=""), reference)
    )
    assert paired.paired
    assert not alone.paired
    assert paired.value == pytest.approx(alone.value)
    assert paired.interval is not None
    assert alone.interval is not None
    assert (paired.interval.high - paired.interval.low) < 0.3 * (alone.interval.high - alone.interval.low)


def test_a_paired_difference_of_means_is_the_interval_of_the_differences():
    draw = np.random.default_rng(0)
    reference = of(draw.normal(size=(1, 4)))
    one, two = (of(draw.normal(size=(15, 4)), pairing="p") for _ in range(2))
    found = difference(image_similarity(one, reference), image_similarity(two, reference)).interval
    values = ((one.unit - two.unit) @ reference.unit.T)[:, 0]
    half = 2.144787 * values.std(ddof=1) / np.sqrt(15)  # Student's t with 14 degrees of freedom
    assert found is not None
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-4)


def test_a_shift_is_clear_and_none_is_not():
    reference = normal(200, seed=9)
    none = difference(kid(normal(200, seed=1), reference), kid(normal(200, seed=2), reference))
    shift = difference(kid(normal(200, seed=1, shift=0.7), reference), kid(normal(200, seed=2), reference))
    assert not none.clear
    assert shift.clear
    assert shift.value > 0


def test_records_survive_json():
    measure = kid(normal(40), normal(30, seed=1))
    assert restore(json.loads(json.dumps(measure.record()))) == measure
    alone = kid(normal(2), normal(30, seed=1))
    assert restore(json.loads(json.dumps(alone.record()))) == alone


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (lambda r: kid(normal(20), r), lambda r: image_similarity(normal(20), r), "different metrics"),
        (lambda r: kid(normal(20), r), lambda r: kid(normal(21), r), "of 20 and of 21 pictures"),
        (lambda r: kid(normal(20), r), lambda r: kid(normal(20), normal(20, seed=3)), "different reference sets"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, words):
    reference = normal(20, seed=7)
    with pytest.raises(DataError, match=words):
        difference(first(reference), second(reference))


def test_unequal_extractors_are_refused():
    with pytest.raises(DataError, match="Extract both sets with the same extractor"):
        kid(normal(10), normal(10, extractor="another"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [(np.zeros(3), "shape"), (np.zeros((0, 3)), "N >= 1"), (np.full((2, 3), np.inf), "finite")],
)
def test_unfit_features_are_refused(rows, words):
    with pytest.raises(DataError, match=words):
        of(rows)


def test_a_feature_without_direction_is_named():
    with pytest.raises(DataError, match="row 1 is zero"):
        _ = of(np.array([[1.0, 0.0], [0.0, 0.0]])).unit


def test_independent_units_are_prompts_where_there_are_several():
    assert normal(6, clusters="aabbcc").independent == 3
    assert normal(6, clusters="aaaaaa").independent == 6
    assert normal(6).independent == 6
    assert isinstance(normal(6), Features)
