"""Datasets that the ``datasets`` library itself wrote, read back from the disk."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from inlay.data.settings import DataSettings
from inlay.data.sources import load_examples

datasets = pytest.importorskip("datasets", reason="the datasets library (extra: hub) is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub cache")
    datasets.disable_progress_bars()


@pytest.fixture
def write(tmp_path, draw):
    """Returns the source of a dataset with three pictures and the given columns."""

    def write(**columns):
        place = tmp_path / "d"
        table = datasets.Dataset.from_dict({"image": [draw(shade=shade) for shade in range(3)], **columns})
        place.mkdir()
        table.cast_column("image", datasets.Image()).to_parquet(place / "train-00000-of-00001.parquet")
        return f"hub:{place}"

    return write


def load(source, **settings):
    return load_examples(DataSettings(source=source, **settings), 64)


def test_parquet_with_pictures_inside(write, draw):
    loaded = load(write(text=["one", "two ", "three\nlines"]))
    assert [(example.id, example.caption) for example in loaded.examples] == [
        ("train/0", "one"),
        ("train/1", "two"),
        ("train/2", "three lines"),
    ]
    assert np.array_equal(np.asarray(loaded.examples[1].open()), np.asarray(draw(shade=1)))


# The library leaves the metadata file open until it is collected.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*metadata.csv:pytest.PytestUnraisableExceptionWarning")
def test_an_imagefolder_whose_pictures_are_files(folder):
    (folder / "metadata.csv").write_text("file_name,caption\na.png,one\nb.png,two\nsub/c.png,three\n")
    loaded = load(f"hub:{folder}", caption_column="caption", count=2)
    assert [example.caption for example in loaded.examples] == ["one", "two"]
    assert loaded.examples[0].sha256 == load(str(folder), caption_column="caption").examples[0].sha256


def test_a_prompt_replaces_the_captions(write):
    assert {example.caption for example in load(write(), prompt="all").examples} == {"all"}


def test_columns_that_do_not_exist_are_reported_together(write, refusal):
    message = refusal(write(texts=["1", "2", "3"]), image_column="picture")
    assert "data.image_column='picture' is not a column; set data.image_column to one of 'image'" in message
    assert "data.caption_column='text' is not a column; the columns are 'image', 'texts'" in message
    assert "Did you mean 'texts'?" in message


def test_an_image_column_of_another_kind(write, refusal):
    message = refusal(write(text=["1", "2", "3"]), image_column="text")
    assert "data.image_column='text' is not a column of pictures" in message


def test_rows_without_caption(write, refusal):
    message = refusal(write(text=["one", None, " "]))
    assert "train/1: text is None, not a caption" in message
    assert "train/2: text is '', not a caption" in message


def test_rows_without_a_picture_and_broken_ones(tmp_path, refusal):
    place = tmp_path / "d"
    place.mkdir()
    pictures = [None, {"bytes": b"nothing", "path": None}]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": pictures}, features=features).to_parquet(place / "train.parquet")
    message = refusal(f"hub:{place}", prompt="x")
    assert "train/0: the row has no picture" in message
    assert "train/1: not a picture format that can be read" in message


def test_a_split_that_does_not_exist(write, refusal):
    message = refusal(write(text=["1", "2", "3"]), split="dev")
    assert "split 'dev'" in message
    assert "train" in message


def test_a_dataset_that_cannot_be_reached(refusal):
    assert "hub dataset 'nobody/nothing'" in refusal("hub:nobody/nothing")
    message = refusal("nobody/nothing")
    assert "data.source: there is no folder nobody/nothing" in message
    assert "Taken as a hub dataset instead" in message


def test_without_the_library_the_message_says_how_to_get_it(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'inlay[hub]'" in refusal("hub:nobody/nothing")
