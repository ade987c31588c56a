from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inlay.data.dataset import Dataset, load_dataset
from inlay.data.settings import DataSettings
from inlay.data.sources import Example
from inlay.data.views import View, covering_size
from inlay.errors import DataError

SHAPES = [(64, 64), (100, 64), (64, 100), (70, 64), (300, 64)]


def example(index, shape=(64, 64)):
    return Example(f"{index}.png", f"caption {index}", f"{index:064x}", *shape, reader=lambda: Image.new("RGB", shape))


def dataset(shapes, **settings):
    examples = tuple(example(index, shape) for index, shape in enumerate(shapes))
    return Dataset(examples, (), DataSettings(source="x", **settings), resolution=64)


def sequence(data, steps, batch_size, seed=0):
    return [item for step in range(steps) for item in data.batch(seed, step, batch_size).items]


small = st.integers(1, 7)


@given(count=small, repeats=st.integers(1, 3), batch_size=st.integers(1, 9), seed=st.integers(0, 9))
def test_every_epoch_shows_every_picture_as_often_as_repeats_says(count, repeats, batch_size, seed):
    data = dataset([(64, 64)] * count, repeats=repeats)
    epochs = 3
    items = sequence(data, -(-epochs * data.images_per_epoch // batch_size), batch_size, seed)
    assert [item.index for item in items] == list(range(len(items)))
    for epoch in range(epochs):
        shown = items[epoch * data.images_per_epoch : (epoch + 1) * data.images_per_epoch]
        assert Counter(item.example_index for item in shown) == dict.fromkeys(range(count), repeats)


@given(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=9), batch_size=st.integers(1, 5))
def test_with_buckets_batches_have_one_size_and_every_picture_has_its_share(shapes, batch_size):
    data = dataset(shapes, buckets=True)
    seen = Counter()
    for step in range(2 * len(data)):
        batch = data.batch(0, step, batch_size)
        assert len(batch.items) == batch_size
        for item in batch.items:
            assert (item.view.height, item.view.width) == batch.size == data.size(data.examples[item.example_index])
        seen.update(item.example_index for item in batch.items)
        if step + 1 == len(data):
            assert seen == dict.fromkeys(range(len(data)), batch_size)
    assert seen == dict.fromkeys(range(len(data)), 2 * batch_size)


def test_buckets_take_turns_evenly():
    data = dataset([(64, 64)] * 30 + [(100, 64)] * 10, buckets=True)
    squares = [data.batch(0, step, 2).size == (64, 64) for step in range(40)]
    for first in range(0, 40, 8):
        assert 4 <= sum(squares[first : first + 8]) <= 8


@given(step=st.integers(0, 10**6), batch_size=small, seed=st.integers(0, 2**31))
def test_a_batch_is_a_function_of_seed_step_and_size(step, batch_size, seed):
    settings = {"crop": "random", "horizontal_flip": 0.5, "caption_dropout": 0.3, "buckets": True}
    first, second = dataset(SHAPES, **settings), dataset(SHAPES, **settings)
    first.batch(seed, 0, 3)
    assert first.batch(seed, step, batch_size) == second.batch(seed, step, batch_size)


@given(batch_size=st.integers(1, 8))
def test_what_a_picture_looks_like_does_not_depend_on_the_batch_size(batch_size):
    data = dataset(SHAPES, crop="random", horizontal_flip=0.5, caption_dropout=0.3)
    assert sequence(data, 40, batch_size)[:40] == sequence(data, 40, 1)


def test_seeds_and_epochs_differ():
    data = dataset([(64, 64)] * 20)
    order = [item.example_index for item in sequence(data, 2, 20)]
    assert order[:20] != order[20:]
    assert order[:20] != [item.example_index for item in sequence(data, 1, 20, seed=1)]


def test_flips_and_dropout_come_at_their_rates():
    data = dataset([(64, 64)] * 50, horizontal_flip=0.25, caption_dropout=0.1)
    items = sequence(data, 40, 100)
    # Standard deviations of the two counts: 27 and 19.
    assert abs(sum(item.view.flip for item in items) - 1000) < 4 * 27.4
    assert abs(sum(item.caption == "" for item in items) - 400) < 4 * 19
    kept = [item for item in items if item.caption]
    assert all(item.caption == f"caption {item.example_index}" for item in kept)


def test_never_and_always_are_exact():
    never = sequence(dataset(SHAPES), 20, 5)
    always = sequence(dataset(SHAPES, horizontal_flip=1, caption_dropout=1), 20, 5)
    assert not any(item.view.flip or not item.caption for item in never)
    assert all(item.view.flip and not item.caption for item in always)


def test_random_crops_reach_every_place_and_centre_crops_one():
    room = covering_size(70, 64, (64, 64))[1] - 64
    random = sequence(dataset([(70, 64)], crop="random"), 300, 1)
    assert {item.view.left for item in random} == set(range(room + 1))
    centre = sequence(dataset([(70, 64)]), 300, 1)
    assert {item.view for item in centre} == {View(64, 64, 0, room // 2, False)}


@given(flip=st.sampled_from([0, 0.5, 1]), buckets=st.booleans())
def test_cacheable_views_are_all_that_batches_use(flip, buckets):
    data = dataset(SHAPES, horizontal_flip=flip, buckets=buckets)
    assert data.cacheable
    used = {(item.example_index, item.view) for item in sequence(data, 100, 3)}
    assert used == {(index, view) for index in range(len(data)) for view in data.views(index)}


def test_random_crops_are_not_cacheable():
    data = dataset(SHAPES, crop="random")
    assert not data.cacheable
    with pytest.raises(ValueError, match=r"data\.crop=random"):
        data.views(0)


def test_pixel_keys_tell_apart_what_differs():
    data, other = dataset(SHAPES), dataset(SHAPES, background="black")
    first, second = data.examples[:2]
    view = data.views(0)[0]
    keys = {
        data.pixel_key(first, view),
        data.pixel_key(second, view),
        data.pixel_key(first, replace(view, flip=True)),
        other.pixel_key(first, view),
    }
    assert len(keys) == 4
    assert data.pixel_key(replace(first, id="other name"), view) in keys


def test_the_hash_depends_on_content_and_captions_and_settings_but_not_on_names():
    data = dataset(SHAPES)
    first, *rest = data.examples
    others = [
        replace(data, examples=(replace(first, sha256="f" * 64), *rest)),
        replace(data, examples=(replace(first, caption="another"), *rest)),
        replace(data, examples=tuple(rest), validation=(first,)),
        replace(data, resolution=72),
        dataset(SHAPES, repeats=2),
        dataset(SHAPES, background="black"),
    ]
    assert len({data.hash, *(other.hash for other in others)}) == 7
    assert replace(data, examples=(replace(first, id="renamed"), *rest)).hash == data.hash
    assert replace(data, settings=DataSettings(source="elsewhere")).hash == data.hash


@pytest.mark.parametrize(("validation", "expected"), [(0, 0), (1, 1), (2, 2), (0.34, 1), (0.01, 1), (0.67, 2)])
def test_validation_takes_its_number_or_share(folder, validation, expected):
    settings = DataSettings(source=str(folder), prompt="x", validation=validation)
    data = load_dataset(settings, 16)
    assert len(data.validation) == expected
    assert {example.id for example in (*data.examples, *data.validation)} == {"a.png", "b.png", "sub/c.png"}


def test_the_split_follows_contents_and_seed(folder):
    settings = DataSettings(source=str(folder), prompt="x", validation=1)
    held_out = {seed: load_dataset(settings, 16, seed).validation[0] for seed in range(20)}
    assert len({example.id for example in held_out.values()}) == 3
    for name in ("a.png", "b.png"):
        (folder / name).rename(folder / f"z{name}")
    for seed, example in held_out.items():
        assert load_dataset(settings, 16, seed).validation[0].sha256 == example.sha256


def test_which_rendered_pictures_are_held_out_follows_neither_from_the_code_that_draws_nor_from_the_size():
    settings = DataSettings(source="tabletop:domain/sketch/train", count=40, validation=4)
    names = {seed: [example.id for example in load_dataset(settings, 64, seed).validation] for seed in (0, 1)}
    assert [name.rpartition("/")[2] for name in names[0]] == ["1", "27", "34", "36"]
    assert names[0] != names[1]
    assert [example.id for example in load_dataset(settings, 32, 0).validation] == names[0]


def test_copies_of_a_picture_fall_on_the_same_side(folder):
    for name in ("a", "b", "sub/c"):
        (folder / f"{name} copy.png").write_bytes((folder / f"{name}.png").read_bytes())
    data = load_dataset(DataSettings(source=str(folder), prompt="x", validation=1), 16)
    assert len(data.validation) == 2
    assert not {example.sha256 for example in data.validation} & {example.sha256 for example in data.examples}


def test_validation_must_leave_something_to_train_on(folder):
    with pytest.raises(DataError, match=r"data\.validation=3 holds out all 3 pictures"):
        load_dataset(DataSettings(source=str(folder), prompt="x", validation=3), 16)


def test_enlarged_pictures_are_noted(folder):
    settings = DataSettings(source=str(folder), prompt="x")
    assert load_dataset(settings, 16).notes == ()
    (note,) = load_dataset(settings, 64).notes
    assert note.startswith("3 of 3 pictures are smaller")
    assert "a.png (24 x 16 pixels)" in note


def test_the_settings_resolution_goes_before_the_bases(folder):
    assert load_dataset(DataSettings(source=str(folder), prompt="x"), 64).resolution == 64
    assert load_dataset(DataSettings(source=str(folder), prompt="x", resolution=32), 64).resolution == 32


def test_skipped_pictures_are_kept_with_the_data_set(folder):
    (folder / "d.png").write_bytes(b"")
    data = load_dataset(DataSettings(source=str(folder), prompt="x", on_error="skip"), 16)
    assert [skipped.id for skipped in data.skipped] == ["d.png"]
    assert len(data) == 3
