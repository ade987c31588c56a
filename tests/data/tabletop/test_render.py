import math
from dataclasses import replace

import numpy as np
import pytest

from inlay.data.tabletop import Scene, Thing, World, backdrop
from inlay.data.tabletop.camera import Camera
from inlay.data.tabletop.parts import PAINTS
from inlay.data.tabletop.render import render
from inlay.data.tabletop.scene import CLASSES, COLOURS, VEHICLES
from inlay.data.tabletop.subjects import SUBJECT_DESIGNS

BALL = Thing("ball", "red", "plain", "large", "centre", 0.0, 0.0, 1.0, 0.0)
SCENE = Scene((BALL,), "marble table", "noon", "usual", 0.3, 0.2, 1.6, 7)


def scene_of(**changes) -> Scene:
    return replace(SCENE, things=(replace(BALL, **changes),))


def mask(scene: Scene) -> np.ndarray:
    """Say where the thing is: where its paint matters."""
    one, two = (
        render(replace(scene, things=(replace(scene.things[0], colour=colour),))) for colour in ("white", "black")
    )
    return np.abs(one.astype(int) - two.astype(int)).max(-1) > 24


def test_same_scene_gives_the_same_bits():
    assert np.array_equal(render(SCENE), render(SCENE))


@pytest.mark.parametrize("size", [32, 64, 100])
def test_size(size):
    image = render(SCENE, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_larger_sizes_show_the_same_picture():
    small, large = render(SCENE, 32).astype(float), render(SCENE, 128).astype(float)
    assert np.abs(large.reshape(32, 4, 32, 4, 3).mean((1, 3)) - small).mean() < 6


@pytest.mark.parametrize("time", ["morning", "noon", "sunset", "night"])
def test_colours_stay_apart_under_every_light(time):
    shown = {}
    for colour in COLOURS:
        image = render(replace(scene_of(colour=colour), time=time))
        shown[colour] = image[24:40, 26:38].reshape(-1, 3).mean(0)
    apart = [np.abs(shown[a] - shown[b]).max() for a in COLOURS for b in COLOURS if a < b]
    assert min(apart) > 18
    warm, cold = shown["red"], shown["blue"]
    assert warm[0] > 1.8 * warm[2]
    assert cold[2] > 1.3 * cold[0]


def test_position_and_size_are_where_the_recipe_says():
    left, right = mask(scene_of(x=-0.45, scale=0.55)), mask(scene_of(x=0.45, scale=0.55))
    columns = np.arange(64)
    assert np.average(columns, weights=left.sum(0)) < 24
    assert np.average(columns, weights=right.sum(0)) > 40
    large = mask(scene_of(scale=1.05)).any(1).sum() / 64
    small = mask(scene_of(scale=0.55)).any(1).sum() / 64
    assert 0.4 <= large <= 0.6
    assert 0.2 <= small <= 0.32


def test_thing_casts_a_shadow_away_from_the_light():
    ground_row = 50
    lit_from_right = render(replace(SCENE, sun=0.1))[ground_row].mean(-1)
    lit_from_left = render(replace(SCENE, sun=math.pi - 0.1))[ground_row].mean(-1)
    assert lit_from_right[:24].min() < 0.8 * lit_from_left[:24].min()
    assert lit_from_left[40:].min() < 0.8 * lit_from_right[40:].min()


def test_night_is_darker_and_sunset_redder_than_noon():
    noon, sunset, night = (
        render(replace(SCENE, time=time)).astype(float).mean((0, 1)) for time in ("noon", "sunset", "night")
    )
    assert night.mean() < 0.6 * noon.mean()
    assert sunset[0] / sunset[2] > 1.3 * noon[0] / noon[2]


@pytest.mark.parametrize("pattern", ["striped", "dotted", "checkered"])
def test_patterns_bring_a_second_colour(pattern):
    plain, patterned = render(scene_of()), render(scene_of(pattern=pattern))
    inner = mask(scene_of())
    changed = (np.abs(plain.astype(int) - patterned).max(-1) > 60)[inner].mean()
    assert 0.2 < changed < 0.75


@pytest.mark.parametrize("kind", [*CLASSES[:-1], *VEHICLES])
def test_every_kind_is_drawn_and_stands_on_the_surface(kind):
    shown = mask(scene_of(kind=kind))
    rows = np.nonzero(shown.any(1))[0]
    assert shown.mean() > 0.03
    assert rows.max() < 62


def test_accessory_and_material_are_drawn():
    design = SUBJECT_DESIGNS["pip"]
    toy = {"kind": "toy", "colour": None, "design": design, "scale": 0.9}
    plain = render(scene_of(**toy))
    for kind in ("hat", "scarf", "flag"):
        worn = render(scene_of(**toy, accessory=kind, accessory_colour="blue"))
        assert (np.abs(worn.astype(int) - plain).max(-1) > 40).sum() > 15, kind
    golden = render(scene_of(**toy, material="gold"))[24:44, 26:38].reshape(-1, 3).mean(0)
    assert golden[0] > golden[1] > 1.3 * golden[2]


def test_sketch_is_paler_with_dark_outlines():
    photo, sketch = render(scene_of(colour="yellow")), render(replace(scene_of(colour="yellow"), style="sketch"))
    assert sketch.mean() > photo.mean()
    border = mask(scene_of())
    edge = border & ~(np.roll(border, 1, 1) & np.roll(border, -1, 1))
    assert sketch[edge].mean() < photo[edge].mean() - 15


def test_windows_of_the_parts_cut_nothing_off(monkeypatch):
    """Looking for every part and its shadow in its own window shows what looking for it everywhere shows."""
    world = World("test")
    scenes = [world.describe(index)[0] for index in range(12)]
    quick = [render(scene) for scene in scenes]
    whole = [-1.0, 1.0, -1.0, 1.0]
    monkeypatch.setattr(Camera, "windows", lambda self, centres, radii: np.array([whole] * len(centres)))
    monkeypatch.setattr(backdrop, "_shadow_windows", lambda placed, *rest: [whole] * len(placed))
    for scene, image in zip(scenes, quick, strict=True):
        assert np.abs(render(scene).astype(int) - image).max() <= 1


def test_every_paint_has_a_name_in_the_captions():
    assert set(PAINTS) == set(COLOURS)
