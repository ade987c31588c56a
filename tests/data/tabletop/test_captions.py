"""Captions are read back by a parser of their own and compared with the recipe."""

import re
from random import Random

import pytest

from inlay.data.tabletop import DOMAINS, Scene, Thing, World, vocabulary
from inlay.data.tabletop.captions import LONGEST, article
from inlay.data.tabletop.scene import ACCESSORIES, CLASSES, COLOURS, PATTERNS, VEHICLES

PARTS = ["train", "test", *(f"domain/{name}/train" for name in DOMAINS)]
SURFACE_WORDS = {
    "wood": "wooden table",
    "wooden": "wooden table",
    "marble": "marble table",
    "grass": "grass",
    "sand": "sand",
    "snow": "snow",
    "tiled": "tiled floor",
    "tiles": "tiled floor",
    "cloth": "blue cloth",
    "carpet": "red carpet",
}
KIND = "|".join((*CLASSES, *VEHICLES))
WORN = "|".join(ACCESSORIES)
ADJECTIVE = "|".join((*COLOURS, *PATTERNS, "small", "large", "big", "golden", "colourful"))
NAMED = re.compile(rf"\ban? ((?:(?:{ADJECTIVE}) )*)({KIND})\b(?: (?:wearing|with) an? ([a-z]+) ({WORN}))?")


def check_thing(found: tuple[str, ...], thing: Thing) -> None:
    words, kind, worn_colour, worn = found
    assert kind == thing.kind
    for word in words.split():
        if word in COLOURS:
            assert word == thing.colour
        elif word in PATTERNS:
            assert word == thing.pattern
        elif word in ("small", "large", "big"):
            assert thing.size == {"big": "large"}.get(word, word)
        elif word == "golden":
            assert thing.material == "gold"
        else:
            assert word == "colourful"
            assert thing.design is not None
            assert thing.colour is None
    if worn:
        assert (worn, worn_colour) == (thing.accessory, thing.accessory_colour)


def check(caption: str, scene: Scene) -> None:
    """Assert that everything that a caption says holds."""
    text = re.sub(r"^(a (photo|picture|sketch|pencil sketch|pencil drawing) of|there is) ", "", caption)
    for phrase in ("on the left", "on the right", "in the centre"):
        if phrase in text:
            assert len(scene.things) == 1
            assert scene.things[0].position == phrase.split()[-1]
            text = text.replace(phrase, "")
    for phrase, surface in (("on a blue cloth", "blue cloth"), ("on a red carpet", "red carpet")):
        if phrase in text:
            assert scene.surface == surface
            text = text.replace(phrase, "")
    found = NAMED.findall(text)
    things = list(scene.things)
    if "right of" in text:
        things.reverse()
    assert len(found) == len(things), caption
    for one, thing in zip(found, things, strict=True):
        check_thing(one, thing)
    assert ("two things" in text) <= (len(things) == 2)
    if len(things) == 2:
        assert scene.things[0].x < scene.things[1].x - 0.5
    for word, surface in SURFACE_WORDS.items():
        assert (word in re.findall("[a-z]+", caption)) <= (scene.surface == surface), caption
    for word in ("morning", "noon", "sunset", "night"):
        assert (word in caption.split()) <= (scene.time == word)
    assert ("above" in caption) <= (scene.viewpoint == "above")
    assert ("eye level" in caption) <= (scene.viewpoint == "eye level")
    assert ("sketch" in caption or "drawing" in caption) == (scene.style == "sketch")


@pytest.mark.parametrize("part", PARTS)
def test_captions_are_true(part):
    world = World(part)
    for index in range(500):
        scene, caption = world.describe(index)
        check(caption, scene)


def test_the_checker_finds_a_wrong_word():
    scene, caption = next(
        (scene, caption)
        for scene, caption in map(World().describe, range(100))
        if len(scene.things) == 1 and f" {scene.things[0].colour} " in caption
    )
    colour = scene.things[0].colour
    other = "green" if colour != "green" else "pink"
    with pytest.raises(AssertionError):
        check(caption.replace(f" {colour} ", f" {other} "), scene)


def test_captions_are_short_plain_and_varied():
    world = World()
    captions = [world.describe(index)[1] for index in range(4000)]
    lengths = [len(caption.split()) for caption in captions]
    assert min(lengths) >= 2
    assert max(lengths) <= LONGEST
    assert all(re.fullmatch(r"[a-z:]+( [a-z:]+)*", caption) for caption in captions)
    assert len(set(captions)) > 0.85 * len(captions)
    assert 0.06 < sum(length <= 5 for length in lengths) / len(captions) < 0.3


def test_vocabulary_is_closed_and_has_no_spare_words():
    used = set()
    for part, count in (("train", 6000), *((f"domain/{name}/train", 500) for name in DOMAINS)):
        world = World(part)
        for index in range(count):
            used |= set(re.findall(r"[a-z]+|[^a-z\s]", world.describe(index)[1]))
    assert used == set(vocabulary())


def test_pretraining_never_says_the_words_of_the_domains():
    world = World()
    captions = " ".join(world.describe(index)[1] for index in range(4000)).split()
    assert not {"golden", "sketch", "drawing", "pencil", *VEHICLES} & set(captions)


def test_wording_varies_while_the_scene_stays():
    from inlay.data.tabletop.captions import caption

    scene = World().describe(0)[0]
    assert len({caption(scene, Random(seed)) for seed in range(30)}) > 15


@pytest.mark.parametrize(("words", "expected"), [("orange egg", "an orange egg"), ("red ball", "a red ball")])
def test_article(words, expected):
    assert article(words) == expected
