"""The judge of the rendered world, held against renders whose truth is known."""

import numpy as np
import pytest

from inlay.data.tabletop import World
from inlay.data.tabletop.asked import asked
from inlay.errors import DataError
from inlay.metrics.judge import attribute_accuracy, config, name_attributes


@pytest.fixture(scope="module")
def renders():
    """Return pictures of one thing that the judge's training never saw, with scenes and captions."""
    world = World("test", seed=5)
    chosen = [index for index in range(260) if len(world.describe(index)[0].things) == 1][:150]
    return world.render_many(chosen)


def test_it_names_what_renders_show_as_often_as_its_card_says(renders):
    images, _, scenes = renders
    named = name_attributes(images)
    colours = [scene.things[0].colour or "several" for scene in scenes]
    right = {
        "class": np.mean([a == scene.things[0].kind for a, scene in zip(named["class"], scenes, strict=True)]),
        "colour": np.mean([a == b for a, b in zip(named["colour"], colours, strict=True)]),
        "surface": np.mean([a == scene.surface for a, scene in zip(named["surface"], scenes, strict=True)]),
    }
    for name, share in right.items():
        stated = config()["accuracy"][name]
        assert share == pytest.approx(stated, abs=4 * (stated * (1 - stated) / 150) ** 0.5 + 0.01), name


def test_accuracy_is_high_for_the_right_captions_and_low_for_others(renders):
    images, captions, _ = renders
    right = attribute_accuracy(images, [asked(text) for text in captions], captions)
    assert right["accuracy"].value > 0.9
    assert right["accuracy"].interval.low < right["accuracy"].value < right["accuracy"].interval.high
    assert right["accuracy_class"].pictures == sum("class" in asked(text) for text in captions)
    assert "judge itself" in right["accuracy_class"].note
    others = [captions[place - 1] for place in range(len(captions))]
    wrong = attribute_accuracy(images, [asked(text) for text in others], others)
    assert wrong["accuracy"].value < 0.5


def test_prompts_that_ask_for_nothing_are_refused(renders):
    images, _, _ = renders
    with pytest.raises(DataError, match="No prompt asks"):
        attribute_accuracy(images[:2], [{}, {}], ["x", "y"])
    with pytest.raises(DataError, match="unequally many"):
        attribute_accuracy(images[:2], [{}], ["x"])


def test_larger_pictures_are_resized():
    image = World("test", size=128)[0].image
    assert len(name_attributes([image])["class"]) == 1
