import gc
import io
import json
import shutil
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from inlay.data.dataset import load_dataset
from inlay.data.settings import DataSettings
from inlay.data.shard_index import read_index
from inlay.data.shard_writer import write_shards
from inlay.data.shards import expand, names_shards
from inlay.data.sources import load_examples
from inlay.errors import DataError


def picture(number, size=(24, 16), kind="PNG"):
    random = np.random.default_rng(number)
    out = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(out, kind)
    return out.getvalue()


def make_shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    for number in range(7):
        inside = place / ("cat" if number % 2 else "dog")
        inside.mkdir(parents=True, exist_ok=True)
        (inside / f"{number}.png").write_bytes(picture(number))
        (inside / f"{number}.txt").write_text(f"number {number}, für Ünïcode")
    return place


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))


def settings(source, **others):
    return DataSettings(source=str(source), **others)


def test_a_folder_and_its_shards_are_the_same_data_set(folder, tmp_path):
    made = write_shards(settings(folder), tmp_path / "shards", 3)
    assert made.source == str(tmp_path / "shards" / "{000..002}.tar")
    assert [path.name for path in made.shards] == ["000.tar", "001.tar", "002.tar"]
    plain, sharded = load_dataset(settings(folder), 16), load_dataset(settings(made.source), 16)
    assert plain.hash == sharded.hash
    for step in range(5):
        one, other = plain.batch(3, step, 4), sharded.batch(3, step, 4)
        assert [item.caption for item in one.items] == [item.caption for item in other.items]
        for a, b in zip(one.items, other.items, strict=True):
            assert np.array_equal(np.array(a.example.open()), np.array(b.example.open()))


def test_the_same_folder_gives_the_same_bytes(folder, tmp_path):
    for name in ("one", "two"):
        write_shards(settings(folder), tmp_path / name, 4)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["000.tar", "000.tar.index.json", "001.tar", "001.tar.index.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_webdataset_reads_our_shards(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    made = write_shards(settings(folder), tmp_path / "shards", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves closing its files to the garbage collector
        read = list(webdataset.WebDataset(made.source, shardshuffle=False, empty_check=False).decode("pil"))
        gc.collect()
    examples = load_examples(settings(made.source), 16).examples
    assert [sample["txt"] for sample in read] == [example.caption for example in examples]
    for sample, example in zip(read, examples, strict=True):
        assert np.array_equal(np.array(sample["png"].convert("RGB")), np.array(example.open()))


def test_we_read_webdatasets_shards(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "%03d.tar"), maxcount=2, verbose=0) as writer:
        for number in range(5):
            array = np.full((8, 8, 3), 10 * number, dtype=np.uint8)
            writer.write(
                {"__key__": f"{number:04d}", "png": array, "json": {"text": f"grey {number}", "label": number}}
            )
    for options, captions in [({}, "grey {}"), ({"classes": True}, "{}")]:
        examples = load_examples(settings(tmp_path / "*.tar", **options), 16).examples
        assert [example.caption for example in examples] == [captions.format(number) for number in range(5)]
        assert [np.array(example.open())[0, 0, 0] for example in examples] == [0, 10, 20, 30, 40]


def test_an_index_is_kept_and_used(tmp_path, monkeypatch):
    shard = make_shard(tmp_path / "a.tar", [("0.png", picture(0)), ("0.txt", b"zero")])
    first = read_index(shard)
    assert not list(tmp_path.glob("*.index.json"))  # nothing is written beside a user's files
    monkeypatch.setattr("inlay.data.shard_index.decode", None)
    assert read_index(shard) == first
    shutil.copy(shard, tmp_path / "copy.tar")
    assert read_index(tmp_path / "copy.tar") == first


def test_a_changed_shard_is_examined_again(tmp_path):
    shard = make_shard(tmp_path / "a.tar", [("0.png", picture(0)), ("0.txt", b"zero")])
    read_index(shard)
    make_shard(shard, [("0.png", picture(1)), ("0.txt", b"one")])
    assert read_index(shard).samples[0].text == "one"


def test_broken_pictures_are_named_and_can_be_left_out(tmp_path):
    broken = picture(1, (64, 64), "JPEG")[:300]
    members = [("0.jpg", picture(0, kind="JPEG")), ("0.txt", b"zero"), ("1.jpg", broken), ("1.txt", b"one")]
    shard = make_shard(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"(?s)1 of 2 pictures cannot be decoded:\n  - a\.tar/1\.jpg: .*on_error=skip"):
        load_examples(settings(shard), 16)
    loaded = load_examples(settings(shard, on_error="skip"), 16)
    assert [example.id for example in loaded.examples] == ["a.tar/0.jpg"]
    assert [skipped.id for skipped in loaded.skipped] == ["a.tar/1.jpg"]
    assert "a.tar/1.jpg" in loaded.notes[0]


@pytest.mark.parametrize("cut", [0.55, 0.8])
def test_a_truncated_shard_gives_what_is_whole(tmp_path, cut):
    members = [part for n in range(4) for part in ((f"{n}.png", picture(n, (60, 60))), (f"{n}.txt", b"some"))]
    shard = make_shard(tmp_path / "a.tar", members)
    content = shard.read_bytes()
    shard.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(DataError, match=r"a\.tar: (ends in the middle of|is broken after)"):
        load_examples(settings(shard), 16)
    loaded = load_examples(settings(shard, on_error="skip"), 16)
    assert 1 <= len(loaded.examples) < 4
    assert loaded.skipped[0].id == "a.tar"
    assert all(example.open().size == (60, 60) for example in loaded.examples)


def test_members_that_are_no_pictures_are_passed_over(tmp_path):
    members = [("readme.md", b"hello"), ("b/1.png", picture(1)), ("b/1.json", b'{"text": "one"}'), ("b/._1.png", b"")]
    loaded = load_examples(settings(make_shard(tmp_path / "a.tar", members)), 16)
    assert [(example.id, example.caption) for example in loaded.examples] == [("a.tar/b/1.png", "one")]


def test_samples_that_make_no_sense_are_named(tmp_path):
    members = [
        *[("0.png", picture(0)), ("0.jpg", picture(0, kind="JPEG")), ("0.txt", b"two pictures")],
        *[("1.png", picture(1)), ("1.json", b"{no json")],
        *[("2.png", picture(2)), ("3.png", picture(3)), ("3.txt", b"fine"), ("2.txt", b"late"), ("2.png", picture(4))],
    ]
    loaded = load_examples(settings(make_shard(tmp_path / "a.tar", members), on_error="skip", prompt="x"), 16)
    reasons = {skipped.id: skipped.reason for skipped in loaded.skipped}
    assert "2 pictures in one sample" in reasons["a.tar/0.png"]
    assert "not JSON" in reasons["a.tar/1.png"]
    assert "a second sample of that name" in reasons["a.tar/2.png"]
    assert [example.id for example in loaded.examples] == ["a.tar/2.png", "a.tar/3.png"]


def test_pictures_without_a_caption_are_named(tmp_path):
    members = [("0.png", picture(0)), ("0.json", b'{"caption": "here"}'), ("1.png", picture(1))]
    shard = make_shard(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"(?s)'text' in its \.json member, which has 'caption'.*1\.png: no caption"):
        load_examples(settings(shard), 16)
    shard = make_shard(tmp_path / "b.tar", members[:2])
    assert load_examples(settings(shard, caption_column="caption"), 16).examples[0].caption == "here"


def test_classes_by_number_have_the_names_beside_the_shards(tmp_path):
    shard = make_shard(tmp_path / "a.tar", [("0.png", picture(0)), ("0.cls", b"1")])
    assert load_examples(settings(shard, classes=True), 16).examples[0].caption == "1"
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert load_examples(settings(shard, classes=True), 16).examples[0].caption == "dog"


def test_compressed_and_other_files_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(__file__, "x")
    with pytest.raises(DataError, match=r"a\.tar\.gz: is compressed; unpack it"):
        load_examples(settings(tmp_path / "a.tar.gz"), 16)
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"b\.tar: is no tar file"):
        load_examples(settings(tmp_path / "b.tar"), 16)
    with pytest.raises(DataError, match=r"no shard .*c\.tar; did you mean .*b\.tar"):
        load_examples(settings(tmp_path / "c.tar"), 16)


def test_patterns(tmp_path):
    for number in range(12):
        (tmp_path / f"x-{number:03d}.tar").touch()
    assert [path.name for path in expand(f"{tmp_path}/x-{{008..011}}.tar")] == [f"x-{n:03d}.tar" for n in range(8, 12)]
    assert len(expand(f"{tmp_path}/x-*.tar")) == 12
    with pytest.raises(DataError, match="counts backwards"):
        expand(f"{tmp_path}/x-{{3..1}}.tar")
    with pytest.raises(DataError, match="no shard matches"):
        expand(f"{tmp_path}/y-*.tar")
    assert names_shards("a/{000..009}.tar")
    assert names_shards("a.TGZ")
    assert not names_shards("pictures")
    assert not names_shards("tabletop:train")


def test_a_folder_of_shards_says_how_to_name_them(tmp_path):
    make_shard(tmp_path / "a.tar", [("0.png", picture(0))])
    with pytest.raises(DataError, match=r"shards are named by a pattern, such as .*\*\.tar"):
        load_examples(settings(tmp_path), 16)


def test_writing_refuses_a_folder_in_use_and_broken_captions(folder, tmp_path):
    with pytest.raises(DataError, match="a new or an empty folder"):
        write_shards(settings(folder), folder, 3)
    (folder / "dog" / "0.txt").unlink()
    with pytest.raises(DataError, match=r"dog/0\.png: no caption"):
        write_shards(settings(folder), tmp_path / "shards", 3)
    assert not (tmp_path / "shards").exists()


def test_the_index_is_readable_json(folder, tmp_path):
    write_shards(settings(folder), tmp_path / "shards", 10)
    index = json.loads((tmp_path / "shards" / "000.tar.index.json").read_text())
    assert len(index["samples"]) == 7
    assert index["samples"][0]["width"] == 24
