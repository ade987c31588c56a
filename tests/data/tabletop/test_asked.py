"""What prompts ask for, held against the truth of the scenes that captions describe."""

import pytest

from inlay.data.tabletop import World
from inlay.data.tabletop.asked import asked, stated


def truth(scene):
    (thing,) = scene.things
    return {
        "class": thing.kind,
        "colour": thing.colour,
        "pattern": thing.pattern,
        "size": thing.size,
        "position": thing.position,
        "surface": scene.surface,
        "time": scene.time,
        "viewpoint": scene.viewpoint,
    }


def test_what_captions_of_one_thing_ask_for_is_what_the_scene_shows():
    world = World("test")
    counts: dict[str, int] = {}
    for index in range(3000):
        scene, caption = world.describe(index)
        found = asked(caption)
        if len(scene.things) == 2:
            assert found == {}, caption
            continue
        assert found.items() <= truth(scene).items(), caption
        assert "class" in found, caption
        for name in found:
            counts[name] = counts.get(name, 0) + 1
    assert set(counts) == {"class", "colour", "pattern", "size", "position", "surface", "time", "viewpoint"}
    assert min(counts.values()) > 100


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a photo of a sks toy", {"class": "toy"}),
        ("A sks toy on the grass, at sunset!", {"class": "toy", "surface": "grass", "time": "sunset"}),
        ("a red sks toy", {"class": "toy"}),
        ("a big blue striped mug", {"class": "mug", "size": "large", "colour": "blue", "pattern": "striped"}),
        ("on a blue cloth there is a red ball", {"class": "ball", "colour": "red", "surface": "blue cloth"}),
        ("a snowman wearing a red hat in the snow", {"class": "snowman", "surface": "snow"}),
        ("a pencil sketch of a red ball", {}),
        ("a golden ball", {}),
        ("a red car", {}),
        ("a mountain lake", {}),
    ],
)
def test_prompts_in_the_captions_manner(prompt, wanted):
    assert asked(prompt) == wanted


def test_a_toy_s_colour_is_stated_but_not_asked_for():
    assert stated("a red sks toy") == {"class": "toy", "colour": "red"}
    assert asked("a red sks toy") == {"class": "toy"}
    assert stated("a red ball") == asked("a red ball") == {"class": "ball", "colour": "red"}
