"""Captions and pictures of a folder: what is read, and every way in which it can be wrong."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from inlay.data.settings import DataSettings
from inlay.data.sources import load_examples


def captions(folder, **settings):
    loaded = load_examples(DataSettings(source=str(folder), **settings), 64)
    return {example.id: example.caption for example in loaded.examples}


def write_texts(folder, **texts):
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.write_text(text, encoding="utf-8")


def write_csv(folder, *lines):
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_jsonl(folder, *rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


ROWS = ("file_name,text", "a.png,one", "b.png,two", "sub/c.png,three")
EXPECTED = {"a.png": "one", "b.png": "two", "sub/c.png": "three"}


def test_one_prompt_serves_all_and_hides_other_captions(folder):
    write_texts(folder, a="mine", orphan="nobody's")
    assert captions(folder, prompt="a photo of sks") == dict.fromkeys(EXPECTED, "a photo of sks")


def test_the_empty_prompt_is_a_prompt(folder):
    assert set(captions(folder, prompt="").values()) == {""}


def test_text_files_beside_the_pictures(folder):
    write_texts(folder, a="\ufeffone\n", b="  two ", sub__c="three")
    assert captions(folder) == EXPECTED
    write_texts(folder, b="two\n  lines\n")
    assert captions(folder)["b.png"] == "two lines"


def test_metadata_csv(folder):
    write_csv(folder, *ROWS)
    assert captions(folder) == EXPECTED


def test_metadata_csv_with_commas_quotes_and_another_column(folder):
    write_csv(folder, "caption,file_name,year", '"one, ""1""",a.png,1', "two,b.png,2", "three,./sub/c.png,3")
    assert captions(folder, caption_column="caption") == EXPECTED | {"a.png": 'one, "1"'}


def test_metadata_jsonl(folder):
    write_jsonl(folder, *({"file_name": name, "text": text, "n": 1} for name, text in EXPECTED.items()))
    assert captions(folder) == EXPECTED


def test_a_metadata_file_in_a_subfolder_speaks_of_that_folder(folder):
    write_csv(folder, *ROWS[:3])
    write_jsonl(folder / "sub", {"file_name": "c.png", "text": "three"})
    assert captions(folder) == EXPECTED


def test_hidden_files_and_files_of_other_kinds_are_passed_over(folder):
    write_csv(folder, *ROWS)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.png").write_bytes(b"")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "a.png").write_bytes(b"")
    (folder / "README.md").write_text("read me")
    assert captions(folder) == EXPECTED


def test_suffixes_are_recognised_in_capitals(folder):
    os.rename(folder / "a.png", folder / "a.PNG")
    assert "a.PNG" in captions(folder, prompt="x")


def test_no_pictures(tmp_path, refusal):
    assert "no pictures" in refusal(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"")
    assert "only .mp4 files" in refusal(tmp_path)


def test_no_captions_at_all(folder, refusal):
    message = refusal(folder)
    assert "none of the 3 pictures has a caption" in message
    for way in ("data.prompt=", "dog.txt", "metadata.csv"):
        assert way in message


def test_a_picture_without_its_text_file(folder, refusal):
    write_texts(folder, a="one", sub__c="three")
    message = refusal(folder)
    assert "b.png: no caption; write b.txt, or give one caption for all pictures with data.prompt" in message
    assert "a.png" not in message


def test_a_caption_file_without_a_picture(folder, refusal):
    write_texts(folder, a="one", b="two", sub__c="three", sub__cc="four", zebra="five")
    message = refusal(folder)
    assert "sub/cc.txt: a caption file without a picture; is it sub/c.png's?" in message
    assert "zebra.txt: a caption file without a picture\n" in message + "\n"


def test_empty_and_unreadable_text_files(folder, refusal):
    write_texts(folder, a=" \n", b="two")
    (folder / "sub" / "c.txt").write_bytes(b"caf\xe9")
    message = refusal(folder)
    assert "a.txt: the caption is empty" in message
    assert "sub/c.txt: cannot be read as UTF-8 text" in message


def test_metadata_and_text_files_together(folder, refusal):
    write_csv(folder, *ROWS)
    write_texts(folder, a="one", notes="of no picture, so of no consequence")
    assert "captions lie both in metadata.csv and in text files (a.txt); keep one of the two" in refusal(folder)
    (folder / "a.txt").unlink()
    assert captions(folder) == EXPECTED


@pytest.mark.parametrize(
    ("columns", "guess"),
    [
        ("file_name,texts,year", "Did you mean data.caption_column=texts?"),
        ("file_name,description", "Did you mean data.caption_column=description?"),
        ("file_name", ""),
    ],
)
def test_a_missing_caption_column(folder, refusal, columns, guess):
    write_csv(folder, columns, *("x" + "," * columns.count(",") for _ in range(3)))
    message = refusal(folder)
    named = ", ".join(f"'{column}'" for column in columns.split(","))
    assert f"metadata.csv: no column 'text'; it has {named}" in message
    assert guess in message
    assert ("Did you mean" in message) == bool(guess)
    # The other problems would only follow from this one.
    assert message.count("\n") == 1


def test_a_missing_file_name_column(folder, refusal):
    write_jsonl(folder, {"name": "a.png", "text": "one"})
    assert "metadata.jsonl: no column 'file_name'; it has 'name', 'text'" in refusal(folder)


def test_rows_without_a_picture_twice_the_same_and_without_a_caption_and_pictures_without_a_row(folder, refusal):
    shutil.copy(folder / "a.png", folder / "d.png")
    write_jsonl(
        folder,
        {"file_name": "a.png", "text": "one"},
        {"file_name": "./a.png", "text": "one again"},
        {"file_name": "bb.png", "text": "two"},
        {"file_name": "sub/c.png", "text": 3},
        {"file_name": "b.png"},
        {"file_name": None, "text": "x"},
    )
    message = refusal(folder)
    assert "metadata.jsonl line 2: a.png already has a caption from metadata.jsonl line 1" in message
    assert "metadata.jsonl line 3: there is no picture bb.png; did you mean b.png?" in message
    assert "metadata.jsonl line 4: text is 3, not a caption" in message
    assert "metadata.jsonl line 5: text is None, not a caption" in message
    assert "metadata.jsonl line 6: file_name is None, not the name of a picture" in message
    assert "d.png: no row in metadata.jsonl; add one, or move the picture elsewhere" in message
    assert message.count("\n") == 6


def test_a_row_may_not_reach_out_of_the_folder(folder, refusal):
    write_csv(folder, *ROWS, "../a.png,four")
    assert "there is no picture ../a.png" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png"\n', "metadata.jsonl: line 1 is not JSON"),
        ("metadata.jsonl", b"[1]\n", "metadata.jsonl: line 1 is not a JSON object"),
        ("metadata.csv", b"file_name,text\na.png,one, two\n", "metadata.csv: line 2 has more cells than columns"),
        ("metadata.csv", b'file_name,text\na.png,"one\n', "metadata.csv: unexpected end of data"),
        ("metadata.csv", b"file_name,text\na.png,caf\xe9\n", "metadata.csv: cannot be read as UTF-8 text"),
        ("metadata.csv", b"file_name,text\n", "metadata.csv: no rows"),
        ("metadata.csv", b"", "metadata.csv: no column 'file_name'; it has none"),
    ],
)
def test_metadata_that_cannot_be_read(folder, refusal, name, content, expected):
    (folder / name).write_bytes(content)
    assert expected in refusal(folder)


def test_long_lists_of_problems_are_cut(folder, refusal):
    write_csv(folder, *ROWS, *(f"x{number}.png,none" for number in range(100)))
    message = refusal(folder)
    assert message.count("there is no picture") == 20
    assert "and 80 more" in message
