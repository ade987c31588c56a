"""Classes of pictures: by folder, by column, in a .zip file, of digits, of the rendered world."""

import zipfile

import pytest
from PIL import Image

from inlay.data.dataset import load_dataset
from inlay.data.settings import DataSettings
from inlay.data.sources import load_examples
from inlay.errors import DataError


def picture(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 8), colour).save(path)


@pytest.fixture
def flowers(tmp_path):
    folder = tmp_path / "flowers"
    picture(folder / "rose" / "1.png")
    picture(folder / "tulip" / "summer" / "2.png", "blue")
    return folder


@pytest.fixture
def zipped(flowers, tmp_path):
    file = tmp_path / "flowers.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(flowers.rglob("*.png")):
            archive.write(path, f"flowers/train/{path.relative_to(flowers)}")
        archive.writestr("flowers/readme.txt", "x")
        archive.writestr("__MACOSX/flowers/train/rose/1.png", "x")
    return file


def classes(source, **settings):
    return {example.id: example.caption for example in load_examples(_settings(source, **settings), 16).examples}


def _settings(source, **settings):
    return DataSettings(source=str(source), **{"classes": True, **settings})


def test_the_first_folder_is_the_class(flowers):
    assert classes(flowers) == {"rose/1.png": "rose", "tulip/summer/2.png": "tulip"}
    picture(flowers / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png: lies in no folder"):
        classes(flowers)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "file_name,label,text\nrose/1.png,3,a rose\ntulip/summer/2.png,4,a tulip\n"),
        ("metadata.jsonl", '{"file_name":"rose/1.png","label":3}\n{"file_name":"tulip/summer/2.png","label":"4"}\n'),
    ],
)
def test_a_column_comes_before_folders(flowers, name, content):
    (flowers / name).write_text(content)
    assert list(classes(flowers).values()) == ["3", "4"]


def test_another_column_can_be_named_and_one_that_is_not_there_leaves_the_folders(flowers):
    (flowers / "metadata.csv").write_text("file_name,kind\nrose/1.png,red\ntulip/summer/2.png,blue\n")
    assert list(classes(flowers, class_column="kind").values()) == ["red", "blue"]
    assert list(classes(flowers).values()) == ["rose", "tulip"]


def test_a_zip_is_read_where_it_lies(zipped):
    found = load_examples(_settings(f"{zipped}/flowers/train"), 16).examples
    assert [(one.id, one.caption) for one in found] == [("rose/1.png", "rose"), ("tulip/summer/2.png", "tulip")]
    assert found[1].open().getpixel((0, 0)) == (0, 0, 255)
    assert sorted(path.name for path in zipped.parent.iterdir()) == ["flowers", "flowers.zip"]
    whole = load_examples(DataSettings(source=str(zipped), prompt="a flower"), 16).examples
    assert {one.caption for one in whole} == {"a flower"}


def test_a_zip_with_nothing_to_read_says_so(zipped, tmp_path):
    with pytest.raises(DataError, match=r"no pictures in flowers/trian; did you mean .*flowers/train"):
        classes(f"{zipped}/flowers/trian")
    with pytest.raises(DataError, match=r"data\.classes=true"):
        load_examples(DataSettings(source=str(zipped)), 16)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"x")
    with pytest.raises(DataError, match="not a readable"):
        classes(broken)


def test_digits_know_their_class():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    data = load_dataset(_settings("digits", count=30), 8)
    assert len(data) == 30
    assert [example.caption for example in data.examples[:10]] == [str(digit) for digit in range(10)]
    assert (data.examples[0].width, data.examples[0].height) == (8, 8)
    extremes = data.examples[0].open().getextrema()
    assert extremes == ((0, 239), (0, 239), (0, 239)), "the darkest stroke of the first digit is 15 of 16"
    told = load_examples(DataSettings(source="digits", count=2), 8).examples
    assert [example.caption for example in told] == ["the digit 0", "the digit 1"]


def test_a_rendered_picture_has_the_kind_of_its_first_thing():
    found = classes("tabletop:train", count=40)
    assert len(set(found.values())) > 5
    assert "ball" in found.values()


def test_a_class_and_a_prompt_are_one_too_many():
    with pytest.raises(ValueError, match="give one of them"):
        DataSettings(source="x", classes=True, prompt="a dog")
