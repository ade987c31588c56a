"""Copies of training pictures are found, pictures of the same subject are not accused."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from inlay.data.tabletop import World
from inlay.data.tabletop.draw import draw_around, draw_design, draw_subject
from inlay.data.tabletop.render import render
from inlay.data.tabletop.scene import SURFACES, TIMES, Design
from inlay.errors import DataError
from inlay.metrics.copies import Copies, find_copies, nearest_by_feature, nearest_by_pixel, thumbnails
from inlay.metrics.features import NAME, fingerprint, image_features
from inlay.metrics.measure import Features
from tests.metrics.sets import normal, of

Set = tuple[Features, np.ndarray]


def described(pictures: np.ndarray) -> Set:
    return Features(image_features(pictures), NAME, fingerprint()), thumbnails(pictures)


@pytest.fixture(scope="module")
def world() -> dict[str, np.ndarray]:
    """Pictures of a subject to train on, of it elsewhere, near copies of the former, and of other toys elsewhere.

    And of the subject on surfaces that no training picture has.
    """
    subject, draw, noise = World("subject/pip"), Random(5), np.random.default_rng(0)
    training = np.stack([subject[index].image for index in range(5)])
    seen = {subject.describe(index)[0].surface for index in range(5)}
    new = [surface for surface in SURFACES if surface not in seen]

    def elsewhere(design: Design | None, surfaces: Sequence[str] = SURFACES) -> np.ndarray:
        (toy,) = draw_subject(draw, "pip", 0).things
        toy = toy if design is None else replace(toy, design=design)
        viewpoint = draw.choice(("usual", "eye level", "above"))
        return render(draw_around(draw, (toy,), draw.choice(surfaces), draw.choice(TIMES), viewpoint, "photo"))

    copies = []
    for index in range(40):
        moved = np.roll(training[index % 5], noise.integers(-2, 3, 2), (0, 1))
        copies.append((moved * noise.uniform(0.9, 1.1) + noise.normal(0, 8, moved.shape)).clip(0, 255).astype(np.uint8))
    return {
        "training": training,
        "elsewhere": np.stack([elsewhere(None) for _ in range(40)]),
        "copies": np.stack(copies),
        "base": np.stack([elsewhere(draw_design(draw)) for _ in range(100)]),
        "new surfaces": np.stack([elsewhere(None, new) for _ in range(32)]),
    }


@pytest.fixture(scope="module")
def sets(world) -> dict[str, Set]:
    return {name: described(pictures) for name, pictures in world.items()}


def test_near_copies_are_found_and_named(sets):
    found = find_copies(sets["copies"], sets["training"], sets["base"])
    assert found.copied.mean() > 0.9
    assert (found.by_pixel == np.arange(40) % 5).mean() > 0.95
    assert found.sentence.startswith("The model copies training pictures ")


def test_the_subject_elsewhere_is_no_copy(sets):
    found = find_copies(sets["elsewhere"], sets["training"], sets["base"])
    assert found.copied.sum() == 0
    assert found.sentence.startswith("No copies among 40 pictures")
    # though features alone would accuse many: it is the subject, and the base has never seen it
    base = nearest_by_feature(sets["base"][0], sets["training"][0])[1]
    assert (found.feature_distance < np.quantile(base, 0.05)).mean() > 0.25


def test_a_few_copies_among_others_are_found(sets):
    # In the very scene of a training picture the subject differs from it no more than these copies do.
    mixed = tuple(
        np.concatenate([one, two[:8]])
        for one, two in zip(
            (sets["new surfaces"][0].values, sets["new surfaces"][1]),
            (sets["copies"][0].values, sets["copies"][1]),
            strict=True,
        )
    )
    found = find_copies((Features(mixed[0], NAME, fingerprint()), mixed[1]), sets["training"], sets["base"])
    assert found.copied[32:].sum() >= 6
    assert found.copied[:32].sum() <= 2


def test_the_base_itself_does_not_copy(sets):
    halves = [
        (Features(sets["base"][0].values[part], NAME, fingerprint()), sets["base"][1][part])
        for part in (slice(0, 50), slice(50, 100))
    ]
    assert not find_copies(halves[0], sets["training"], halves[1]).copied.any()


def test_mirrored_pictures_are_the_same_picture(world):
    small = thumbnails(world["training"])
    number, distance = nearest_by_pixel(thumbnails(world["training"][:, :, ::-1]), small)
    assert number.tolist() == [0, 1, 2, 3, 4]
    assert distance == pytest.approx(0, abs=1e-7)


def test_pixel_distance_is_the_root_mean_square_of_the_thumbnails():
    black, grey = np.zeros((1, 40, 24, 3), np.uint8), np.full((1, 40, 24, 3), 51, np.uint8)
    assert thumbnails(grey).shape == (1, 16, 16, 3)
    assert nearest_by_pixel(thumbnails(black), thumbnails(grey))[1] == pytest.approx(0.2)


def found_at(distances: np.ndarray, null: np.ndarray) -> Copies:
    """Judge pictures that lie at given distances in both spaces, from one black training picture."""

    def at(values: np.ndarray) -> Set:
        angle = 2 * np.arcsin(values / 2)  # unit vectors at that distance from (1, 0)
        small = np.broadcast_to(values[:, None, None, None], (len(values), 16, 16, 3))
        return of(np.stack([np.cos(angle), np.sin(angle)], 1)), small

    return find_copies(at(distances), at(np.zeros(1)), at(null))


def test_probabilities_count_the_base_pictures_that_are_as_near():
    found = found_at(np.array([0.05, 0.15, 0.95]), np.linspace(0.1, 1, 10))
    assert found.probability == pytest.approx([1 / 11, 2 / 11, 10 / 11])


def test_how_many_are_accused_follows_benjamini_and_hochberg():
    null = np.linspace(0.5, 1, 99)
    alone = found_at(np.array([0.1] + [0.9] * 9), null)
    # one of ten needs a probability of 0.005; the least is 0.01
    assert not alone.copied.any()
    assert "Fewer than 2 copies would have gone unseen" in alone.sentence
    pair = found_at(np.array([0.1, 0.1] + [0.9] * 8), null)
    assert pair.copied.tolist() == [True, True] + [False] * 8
    assert pair.sentence == "The model copies training picture 1 (2 of 10)."


def test_too_few_pictures_of_the_base_judge_nothing():
    found = found_at(np.array([0.1]), np.linspace(0.5, 1, 18))
    assert found.sentence == "Copying cannot be judged by 18 pictures of the base: at least 19 are needed."
    assert found_at(np.array([0.1]), np.linspace(0.5, 1, 19)).copied.all()


def test_pictures_and_features_must_be_of_one_number():
    small = thumbnails(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="training pictures have 3 rows of features and 2 thumbnails"):
        find_copies((normal(2), small), (normal(3), small), (normal(2), small))
    with pytest.raises(DataError, match="number 1 is float64"):
        thumbnails([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3))])
