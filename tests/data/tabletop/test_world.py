import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inlay.data.tabletop import DOMAINS, SUBJECTS, Scene, World
from inlay.data.tabletop.draw import APART
from inlay.data.tabletop.scene import CLASSES, COLOURS, PATTERNS, SURFACES, TIMES, VEHICLES, VIEWPOINTS
from inlay.data.tabletop.subjects import SUBJECT_DESIGNS
from inlay.errors import DataError

FROZEN = Path(__file__).with_name("frozen.json")
PARTS = [
    "train",
    "test",
    "subject/pip",
    *(f"domain/{name}/{half}" for name in DOMAINS for half in ("train", "reference")),
]


@pytest.mark.parametrize("part", PARTS)
def test_pictures_repeat_exactly(part):
    one, two = World(part)[3], World(part)[3]
    assert np.array_equal(one.image, two.image)
    assert (one.caption, one.scene) == (two.caption, two.scene)


def test_pretraining_pictures_are_those_that_the_base_was_trained_on():
    """The table holds mean colours of quarters of the picture, [2, 2, 3]; see `tests/data/tabletop/freeze.py`."""
    for entry in json.loads(FROZEN.read_text()):
        picture = World(entry["part"])[entry["index"]]
        assert picture.caption == entry["caption"]
        quarters = picture.image.reshape(2, 32, 2, 32, 3).mean((1, 3))
        assert np.abs(quarters - np.array(entry["quarters"])).max() < 1.5, entry


def test_lengths():
    assert len(World()) == 1_000_000
    assert {len(World(f"subject/{name}")) for name in SUBJECTS} == {5}
    assert {len(World(f"domain/{name}/train")) for name in DOMAINS} == {500}
    assert {len(World(f"domain/{name}/reference")) for name in DOMAINS} == {2000}
    assert len(SUBJECTS) >= 8
    assert len(DOMAINS) >= 3
    assert len(CLASSES) >= 12


@pytest.mark.parametrize("part", ["trian", "subject/nobody", "domain/sketch", ""])
def test_unknown_part_names_what_is_allowed(part):
    with pytest.raises(DataError, match=r"subject/pip.*domain/gold/reference"):
        World(part)


@pytest.mark.parametrize("index", [-1, 5])
def test_index_outside_the_part(index):
    with pytest.raises(IndexError, match="5 pictures"):
        World("subject/pip")[index]


def test_iteration_ends():
    assert len(list(World("subject/zed"))) == 5


def test_parts_and_seeds_share_no_scene():
    worlds = [World("train"), World("test"), World("train", seed=1), World("domain/sketch/train")]
    worlds.append(World("domain/sketch/reference"))
    textures = [{(scene.sun, scene.edge) for scene, _ in map(world.describe, range(300))} for world in worlds]
    assert len(set.union(*textures)) == 300 * len(worlds)


def test_every_attribute_occurs():
    scenes = [World().describe(index)[0] for index in range(3000)]
    things = [thing for scene in scenes for thing in scene.things]
    assert {thing.kind for thing in things} == set(CLASSES)
    assert {thing.colour for thing in things} == {*COLOURS, None}
    assert {thing.pattern for thing in things} == set(PATTERNS)
    assert {scene.surface for scene in scenes} == set(SURFACES)
    assert {scene.time for scene in scenes} == set(TIMES)
    assert {scene.viewpoint for scene in scenes} == set(VIEWPOINTS)
    assert 0.2 < np.mean([len(scene.things) == 2 for scene in scenes]) < 0.4
    # A toy in pretraining wears what the evaluation prompts ask of a subject.
    worn = {thing.accessory for thing in things if thing.kind == "toy"}
    assert worn >= {"hat", "scarf", "flag"}


@pytest.mark.parametrize("part", ["train", "test"])
def test_pretraining_holds_no_subject_and_no_domain(part):
    world = World(part)
    toys = 0
    for index in range(4000):
        scene, _ = world.describe(index)
        assert scene.style == "photo"
        for thing in scene.things:
            assert thing.kind not in VEHICLES
            assert thing.material == "paint"
            if thing.design is not None:
                toys += 1
                assert min(thing.design.distance(subject) for subject in SUBJECT_DESIGNS.values()) >= APART
    assert toys > 500


def test_subjects_differ_from_each_other():
    designs = list(SUBJECT_DESIGNS.values())
    assert min(a.distance(b) for a in designs for b in designs if a is not b) >= 2 * APART - 1


@pytest.mark.parametrize("name", SUBJECTS)
def test_subject_pictures_show_one_design_in_different_scenes(name):
    scenes = [picture.scene for picture in World(f"subject/{name}")]
    assert {scene.things[0].design for scene in scenes} == {SUBJECT_DESIGNS[name]}
    assert len({scene.surface for scene in scenes}) == 5
    assert len({scene.time for scene in scenes}) == 4


def test_domains_show_what_they_are_about():
    kinds = {
        thing.kind for scene, _ in map(World("domain/vehicles/train").describe, range(200)) for thing in scene.things
    }
    assert kinds == set(VEHICLES)
    assert {scene.style for scene, _ in map(World("domain/sketch/reference").describe, range(50))} == {"sketch"}
    golden = [thing for scene, _ in map(World("domain/gold/train").describe, range(50)) for thing in scene.things]
    assert {(thing.material, thing.colour) for thing in golden} == {("gold", None)}


@pytest.mark.parametrize("part", PARTS)
def test_scene_survives_json(part):
    for index in range(5):
        scene, _ = World(part).describe(index)
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene


def test_render_many_keeps_the_order_whatever_the_processes():
    world = World("test", size=32)
    indices = [7, 3, 3, 11]
    images, captions, scenes = world.render_many(indices)
    assert images.shape == (4, 32, 32, 3)
    assert captions[1] == captions[2] == world[3].caption
    assert scenes[3] == world[11].scene
    again, *_ = world.render_many(indices, processes=2)
    assert np.array_equal(images, again)


def test_render_many_of_nothing():
    images, captions, scenes = World().render_many([])
    assert images.shape == (0, 64, 64, 3)
    assert captions == scenes == []


def test_the_world_needs_no_torch():
    code = "import sys, inlay.data.tabletop as t; t.World()[0]; print('torch' in sys.modules, 'PIL' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]
