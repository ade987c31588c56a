import json

import numpy as np
import pytest
from PIL import Image

from inlay.data.tabletop import Scene, World, class_prompt, evaluation_prompts, write_folder
from inlay.data.tabletop.render import render
from inlay.errors import DataError


def test_domain_folder_has_pictures_captions_and_recipes(tmp_path):
    folder = write_folder("domain/gold/train", tmp_path / "gold", count=3)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    for index, line in enumerate(lines):
        image = np.asarray(Image.open(folder / line["file_name"]))
        picture = World("domain/gold/train")[index]
        assert np.array_equal(image, picture.image)
        assert line["text"] == picture.caption
        assert np.array_equal(image, render(Scene.from_dict(line["scene"])))


def test_subject_folder_has_pictures_and_prompts_but_no_captions(tmp_path):
    write_folder("subject/momo", tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 5
    assert not (tmp_path / "metadata.jsonl").exists()
    prompts = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert [prompt["prompt"] for prompt in prompts] == list(evaluation_prompts("momo"))
    assert all(prompt["class_prompt"] == class_prompt(prompt["prompt"]) for prompt in prompts)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(DataError, match="not an empty directory"):
        write_folder("subject/momo", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


@pytest.mark.parametrize("count", [0, 6])
def test_count_outside_the_part(tmp_path, count):
    with pytest.raises(DataError, match="allows 1 to 5"):
        write_folder("subject/momo", tmp_path / "new", count=count)
    assert not (tmp_path / "new").exists()
