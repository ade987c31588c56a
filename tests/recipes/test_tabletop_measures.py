"""What the quality figures are computed with."""

from collections import Counter
from random import Random

import numpy as np
import pytest
import torch

from inlay.data.tabletop import World
from inlay.data.tabletop.captions import caption
from inlay.data.tabletop.scene import COLOURS


def test_wilson_interval_agrees_with_the_published_example(recipe_folder):
    import quality

    # Newcombe 1998, table I, method 3: 81 of 263 gives 0.2553 to 0.3662.
    found = quality.proportion(81, 263)
    assert (found["low"], found["high"]) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_groups_hold_differing_captions_only(recipe_folder):
    import clip

    captions = ["a", "b", "a", "c", "d", "b", "e"]
    assert clip.groups(captions, size=3) == [[0, 1, 3], [4, 5, 6]]


def test_retrieval_counts_both_directions(recipe_folder):
    import clip

    captions = [str(number) for number in range(64)]
    eye = torch.eye(64)
    assert clip.retrieval(eye, eye, captions) == {"image_to_text": 1.0, "text_to_image": 1.0, "pairs": 64}
    swapped = eye[[1, 0, *range(2, 64)]]
    assert clip.retrieval(eye, swapped, captions)["image_to_text"] == 62 / 64


@pytest.mark.parametrize("index", range(12))
def test_the_reader_of_captions_knows_how_often_each_is_said(recipe_folder, index):
    import ceiling

    scene, draws = World("test").describe(index)[0], 3000
    draw = Random(index)
    counts = Counter(ceiling.claims_of(caption(scene, draw)) for _ in range(draws))
    chances = {claims: ceiling.chance(claims, scene) for claims in counts}
    assert all(chances.values())  # what is said is so
    assert 0.97 < sum(chances.values()) <= 1 + 1e-9
    # n draws over k outcomes lie at most sqrt(k / n) / 2 from their chances, on average (Cauchy and Schwarz).
    apart = sum(abs(counts[claims] / draws - chances[claims]) for claims in counts) / 2
    assert apart < (len(counts) / draws) ** 0.5 / 2 + 0.01


def test_a_caption_that_is_not_so_has_no_chance(recipe_folder):
    import ceiling

    scene = World("test").describe(0)[0]
    thing = scene.things[0]
    other = next(colour for colour in COLOURS if colour != thing.colour)
    assert ceiling.chance(ceiling.claims_of(f"a photo of a {thing.colour} {thing.kind}"), scene) > 0
    assert ceiling.chance(ceiling.claims_of(f"a photo of a {other} {thing.kind}"), scene) == 0
    assert ceiling.chance(ceiling.claims_of(f"a {thing.kind} next to a cake"), scene) == 0


def test_the_reader_guesses_where_several_captions_fit(recipe_folder):
    import ceiling

    scenes = [World("test").describe(0)[0]] * 2
    thing = scenes[0].things[0]
    captions = [f"a {thing.colour} {thing.kind}", f"a photo of a {thing.colour} {thing.kind}"]
    assert ceiling.best_retrieval(captions, scenes, [[0, 1]]) == {"image_to_text": 0.5, "text_to_image": 0.5}


def test_prompts_name_class_and_colour_of_one_plain_thing(recipe_folder):
    import quality

    world = World("test")
    described = [world.describe(index) for index in range(300)]
    taken = [(scene, text) for scene, text in described if quality.asks_class_and_colour(scene, text)]
    assert len(taken) > 40
    for scene, text in taken:
        (thing,) = scene.things
        assert thing.kind in text
        assert thing.colour in text
        assert thing.accessory is None


def test_truth_reads_every_attribute(recipe_folder):
    import classifier

    world = World("test")
    scene = next(scene for scene in (world.describe(k)[0] for k in range(50)) if len(scene.things) == 1)
    values = dict(zip(classifier.ATTRIBUTES, classifier.truth(scene), strict=True))
    assert classifier.ATTRIBUTES["class"][values["class"]] == scene.things[0].kind
    assert classifier.ATTRIBUTES["surface"][values["surface"]] == scene.surface


def test_judge_names_every_attribute_of_every_picture(recipe_folder):
    import classifier

    torch.manual_seed(0)
    named = classifier.Judge().name(np.zeros((3, 64, 64, 3), np.uint8))
    assert set(named) == set(classifier.ATTRIBUTES)
    assert all(values.shape == (3,) for values in named.values())


def test_classes_are_judged_one_by_one_with_what_they_are_taken_for(recipe_folder):
    import classifier
    import quality

    world = World("test")
    scenes = {
        kind: next(k for k in range(400) if [thing.kind for thing in world.describe(k)[0].things] == [kind])
        for kind in ("ball", "cone", "tree")
    }
    shown = ("ball", "ball", "cone", "tree", "tree")
    should = ("ball", "ball", "ball", "cone", "cone")
    named = classifier.load(quality.folder()).name(np.stack([world[scenes[kind]].image for kind in shown]))
    found = quality.judged_by_class(named, [world.describe(scenes[kind])[0] for kind in should])
    assert list(found) == ["ball", "cone"]
    assert found["ball"] == quality.proportion(2, 3) | {"taken_for": "cone"}
    assert found["cone"] == quality.proportion(0, 2) | {"taken_for": "tree"}


def test_batches_visit_everything_once_an_epoch(recipe_folder):
    import training

    seen = torch.cat(list(training.batches(0, "test", 12, 4, 3)))
    assert sorted(seen.tolist()) == list(range(12))
    again = torch.cat(list(training.batches(0, "test", 12, 4, 3)))
    assert torch.equal(seen, again)


def test_trace_averages_between_lines(recipe_folder, tmp_path):
    import training

    trace = training.Trace(tmp_path / "trace.json", 3, every=2)
    for step, loss in enumerate((1.0, 3.0, 5.0)):
        trace.add(step, loss=loss)
    assert [(row["step"], row["loss"]) for row in trace.rows] == [(2, 2.0), (3, 5.0)]
