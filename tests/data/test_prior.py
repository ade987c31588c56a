from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from inlay.data.dataset import load_dataset
from inlay.data.prior import DrawnPictures, given_pictures, make_prior, to_draw
from inlay.data.settings import CLASS_IMAGES, DataSettings, PriorSettings
from inlay.data.sources import Loaded
from inlay.errors import DataError

NONE = Loaded([], [], [])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def drawn(draw):
    """Five class pictures of 24 x 16 pixels, as a base would have left them."""
    pictures = DrawnPictures({"prompt": "a toy", "width": 24, "height": 16, "seed": 3})
    pictures.directory.mkdir(parents=True)
    for index in range(5):
        draw(shade=100 + index).save(pictures.path(index))
    return pictures


def section(folder, prior=None, **settings):
    own = {"prompt": "a toy", **(prior or {})}
    return DataSettings.model_validate({"source": str(folder), "prompt": "a sks toy", "prior": own, **settings})


@pytest.mark.parametrize(
    ("prior", "given", "wanted"),
    [
        ({}, 0, CLASS_IMAGES),
        ({"images": 7}, 0, 7),
        ({"source": "photos"}, 3, 0),
        ({"source": "photos", "images": 7}, 3, 4),
        ({"source": "photos", "images": 7}, 9, 0),
    ],
)
def test_what_the_user_does_not_give_is_drawn(prior, given, wanted):
    assert to_draw(PriorSettings(prompt="a toy", **prior), given) == wanted


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ({"prompt": "  "}, "prompt is empty; describe the class"),
        ({"prompt": "a sks toy"}, "prompt and prior.prompt are both 'a sks toy'"),
        ({"weight": 0}, "greater than 0"),
        ({"images": 0}, "greater than or equal to 1"),
        ({"wieght": 2}, "Extra inputs"),
    ],
)
def test_wrong_settings_are_refused(prior, said):
    with pytest.raises(ValidationError, match=said):
        section("photos", prior)


def test_buckets_take_class_pictures_apart():
    assert section("x", buckets=True).prior_apart
    assert section("x", {"apart": True}).prior_apart
    assert not section("x").prior_apart
    assert not DataSettings(source="x", buckets=True).prior_apart


def test_without_a_folder_nothing_is_given(folder):
    assert given_pictures(section(folder), 16) == NONE
    assert given_pictures(DataSettings(source=str(folder)), 16) == NONE


def test_given_pictures_carry_the_class_prompt_and_are_no_more_than_asked_for(folder):
    given = given_pictures(section("elsewhere", {"source": str(folder), "images": 2}), 16)
    assert [(example.id, example.caption) for example in given.examples] == [("a.png", "a toy"), ("b.png", "a toy")]
    few = given_pictures(section("elsewhere", {"source": str(folder), "images": 50}), 16)
    assert (len(few.examples), few.notes) == (3, [])


def test_a_missing_class_folder_is_named_by_its_key(folder):
    with pytest.raises(
        DataError, match=r"^data\.prior\.source: there is no folder .*picture; did you mean .*pictures\?"
    ):
        given_pictures(section(folder, {"source": str(folder.parent / "picture")}), 16)


def test_a_class_picture_that_cannot_be_decoded_stops_or_is_left_out(folder):
    (folder / "d.png").write_bytes(b"\x89PNG broken")
    own = {"source": str(folder)}
    with pytest.raises(DataError, match=r"d\.png"):
        given_pictures(section("elsewhere", own), 16)
    given = given_pictures(section("elsewhere", own, on_error="skip"), 16)
    assert len(given.examples) == 3
    assert [skipped.id for skipped in given.skipped] == ["d.png"]
    assert given.notes == ["1 class pictures cannot be decoded and are left out"]


def test_pictures_of_another_recipe_lie_elsewhere(drawn):
    other = DrawnPictures({**drawn.recipe, "seed": 4})
    assert other.directory != drawn.directory
    assert other.missing(range(5)) == [0, 1, 2, 3, 4]
    assert DrawnPictures(dict(reversed(drawn.recipe.items()))).missing(range(7)) == [5, 6]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another size"])
def test_a_broken_picture_counts_as_missing(drawn, draw, damage):
    path = drawn.path(2)
    content = path.read_bytes()
    if damage == "another size":
        draw(10, 10).save(path)
    else:
        changed = bytearray(content)
        changed[len(content) // 2] ^= 255
        path.write_bytes({"cut": content[:-20], "flipped": bytes(changed), "empty": b""}[damage])
    assert drawn.missing(range(5)) == [2]


def test_drawn_pictures_come_after_the_given_ones_and_are_cut_like_the_subject(folder, drawn):
    subject = load_dataset(section(folder, horizontal_flip=1.0, repeats=3, validation=1), 16)
    given = given_pictures(section("elsewhere", {"source": str(folder), "images": 8}), 16)
    prior = make_prior(subject, given, drawn.examples(5), drawn.hash)
    assert (len(prior.dataset), prior.given) == (8, 3)
    assert prior.dataset.validation == ()
    assert [example.caption for example in prior.dataset.examples] == ["a toy"] * 8
    assert prior.dataset.examples[3].open().getpixel((0, 0)) == (0, 0, 100)
    batch = prior.batch(0, 0, 8)
    assert all(item.view.flip for item in batch.items)
    assert batch.size == (16, 16)
    assert Counter(item.example_index for item in batch.items) == dict.fromkeys(range(8), 1)
    assert prior.dataset.images_per_epoch == 8


def test_identity_is_the_content_of_given_and_the_recipe_of_drawn_pictures(folder, drawn, draw):
    subject = load_dataset(section(folder), 16)
    given = given_pictures(section("elsewhere", {"source": str(folder)}), 16)

    def identity(given=NONE, count=5, recipe_hash=drawn.hash):
        return make_prior(subject, given, drawn.examples(count), recipe_hash).identity

    before = identity(), identity(given)
    assert len({*before, identity(count=4), identity(recipe_hash="other")}) == 4
    draw(shade=42).save(drawn.path(0))  # drawn anew on another machine
    assert identity() == before[0]
    draw(shade=43).save(folder / "a.png")
    assert identity(given_pictures(section("elsewhere", {"source": str(folder)}), 16)) != before[1]


def test_small_class_pictures_are_told(folder, drawn):
    subject = load_dataset(section(folder), 32)
    prior = make_prior(subject, NONE, drawn.examples(5), drawn.hash)
    assert prior.dataset.notes[0].startswith("5 of 5 class pictures are smaller than they are trained at")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), step=st.integers(0, 500), batch_size=st.integers(1, 7))
def test_a_step_shows_as_many_class_pictures_chosen_independently(seed, step, batch_size):
    subject, prior = _in_memory(4), _in_memory(6)
    shown = prior.batch(seed, step, batch_size)
    again = prior.batch(seed, step, batch_size)
    other = subject.dataset.batch(seed, step, batch_size)
    assert shown == again
    assert len(shown.items) == len(other.items) == batch_size
    assert shown.seed != other.seed == seed


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), batch_size=st.integers(1, 7))
def test_passes_show_every_class_picture_equally_often(seed, batch_size):
    prior = _in_memory(6)
    seen = Counter(item.example_index for step in range(6) for item in prior.batch(seed, step, batch_size).items)
    assert seen == dict.fromkeys(range(6), batch_size)


def _in_memory(count):
    from inlay.data.dataset import Dataset
    from inlay.data.sources import Example

    def make(name):
        return Example(name, "x", name, 16, 16, lambda: Image.new("RGB", (16, 16)))

    examples = tuple(make(str(number)) for number in range(count))
    subject = Dataset(examples, (), section("photos"), 16)
    return make_prior(subject, Loaded(list(examples), [], []), [], "")
