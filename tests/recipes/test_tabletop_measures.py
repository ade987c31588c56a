"""What the quality figures are computed with."""

import numpy as np
import pytest
import torch

from inlay.data.tabletop import World


def test_wilson_interval_agrees_with_the_published_example(recipe_folder):
    import quality

    # Newcombe 1998, table I, method 3: 81 of 263 gives 0.2553 to 0.3662.
    found = quality.wilson(81, 263)
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
