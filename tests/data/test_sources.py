from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inlay.data.settings import DataSettings
from inlay.data.sources import load_examples
from inlay.errors import DataError

DOG = Path(__file__).parents[2] / ".." / "shared" / "data" / "dreambooth" / "dog"


def load(source, **settings):
    return load_examples(DataSettings(source=str(source), **{"prompt": "a thing", **settings}), 64)


def test_examples_are_in_order_of_their_names_and_know_their_content(folder, draw):
    loaded = load(folder)
    assert [example.id for example in loaded.examples] == ["a.png", "b.png", "sub/c.png"]
    first = loaded.examples[0]
    assert first.sha256 == hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    assert (first.width, first.height) == (24, 16)
    assert np.array_equal(np.asarray(first.open()), np.asarray(draw()))
    assert (loaded.skipped, loaded.notes) == ([], [])


def test_width_and_height_are_those_of_the_upright_picture(folder, draw):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(24, 16).save(folder / "a.png", exif=exif)
    assert (load(folder).examples[0].width, load(folder).examples[0].height) == (16, 24)


def test_the_background_of_the_settings_is_used(folder):
    Image.new("RGBA", (4, 4)).save(folder / "a.png")
    assert load(folder, background="#010203").examples[0].open().getpixel((0, 0)) == (1, 2, 3)


def test_count_takes_the_first_and_notes_when_there_are_fewer(folder):
    assert [example.id for example in load(folder, count=2).examples] == ["a.png", "b.png"]
    assert load(folder, count=2).notes == []
    (note,) = load(folder, count=1000).notes
    assert "data.count asks for 1,000 pictures" in note
    assert "has 3" in note


def break_two(folder):
    photograph = folder / "b.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(photograph)
    photograph.write_bytes(photograph.read_bytes()[:1500])
    (folder / "sub" / "z.heic").write_bytes(b"no such thing")


def test_all_files_that_cannot_be_decoded_are_named_at_once(folder, refusal):
    break_two(folder)
    message = refusal(folder, prompt="x")
    assert "2 of 5 pictures cannot be decoded" in message
    assert "b.jpg: image file is truncated" in message
    assert "sub/z.heic: not a picture format that can be read; convert it to PNG or JPEG" in message
    assert "data.on_error=skip" in message


def test_skipping_lists_what_was_left_out(folder):
    break_two(folder)
    loaded = load(folder, on_error="skip")
    assert [example.id for example in loaded.examples] == ["a.png", "b.png", "sub/c.png"]
    assert [skipped.id for skipped in loaded.skipped] == ["b.jpg", "sub/z.heic"]
    (note,) = loaded.notes
    assert "b.jpg: image file is truncated" in note


def test_skipping_everything_is_an_error(folder, refusal):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    message = refusal(folder, prompt="x", on_error="skip")
    assert "3 of 3 pictures cannot be decoded" in message
    assert "the file is empty" in message
    assert "on_error" not in message


def test_captions_and_decoding_are_reported_together(folder, refusal):
    (folder / "a.png").write_bytes(b"")
    (folder / "a.txt").write_text("one")
    message = refusal(folder)
    assert "b.png: no caption" in message
    assert "a.png: the file is empty" in message


def test_a_picture_that_goes_or_changes_during_a_run_is_named(folder, draw):
    first, second, _ = load(folder).examples
    (folder / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: could be read when the run began, and no longer can"):
        first.open()
    draw(10, 10).save(folder / "b.png")
    with pytest.raises(DataError, match=r"b\.png: was 24 x 16 pixels when the run began and is now 10 x 10"):
        second.open()


def test_a_missing_folder_suggests_its_neighbour(folder, refusal):
    assert refusal(folder.parent / "picture") == (
        f"data.source: there is no folder {folder.parent / 'picture'}; did you mean {folder}?"
    )
    assert refusal(folder / "x" / "y") == f"data.source: there is no folder {folder / 'x' / 'y'}, nor {folder / 'x'}"
    assert "is a file; it must be a folder" in refusal(folder / "a.png")
    assert refusal("photos") == "data.source: there is no folder photos"


def test_the_rendered_world():
    settings = DataSettings(source="tabletop:train", count=3)
    examples = load_examples(settings, 64).examples
    assert [example.id for example in examples] == [f"tabletop:train/{index}" for index in range(3)]
    assert examples[0].open().size == (64, 64)
    assert len({example.sha256 for example in examples}) == 3
    assert all(example.caption for example in examples)
    assert load_examples(settings, 64).examples == examples
    assert load_examples(settings, 32).examples[0].sha256 != examples[0].sha256
    assert load("tabletop:train", count=1).examples[0].caption == "a thing"


def test_a_part_of_the_rendered_world_with_fewer_pictures_than_asked_for():
    loaded = load("tabletop:subject/pip", count=9)
    assert len(loaded.examples) == 5
    assert loaded.notes == ["data.count asks for 9 pictures; tabletop:subject/pip has 5"]


def test_an_unknown_part_of_the_rendered_world(refusal):
    assert "nowhere" in refusal("tabletop:nowhere")


@pytest.mark.skipif(not DOG.is_dir(), reason=f"the photographs are not at {DOG}")
def test_real_photographs():
    examples = load(DOG).examples
    assert len(examples) == 5
    assert all(min(example.width, example.height) == 512 for example in examples)
