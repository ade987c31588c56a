"""`inlay evaluate` from the command line, on a tiny run and folders of pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from inlay.cli.main import main
from inlay.data.tabletop import World, write_folder
from inlay.run.config import RunConfig
from inlay.run.job import execute
from inlay.run.load import validate

FAST = ["--steps", "2", "--pictures", "2", "--copies", "4", "-f", "tabletop"]
ASKED = ["-p", "a photo of sks dog", "-p", "a sks dog", "-p", "a red sks dog"]


@pytest.fixture(scope="module")
def runs(tiny_base, photos, tmp_path_factory):
    """Return two finished runs."""
    found = []
    for number, rate in enumerate((1e-3, 3e-2)):
        place = tmp_path_factory.mktemp("runs") / f"run{number}"
        config = validate(
            RunConfig,
            {
                "base": str(tiny_base),
                "data": {"source": str(photos), "prompt": "a photo of sks dog"},
                "method": {"name": "lora", "rank": 2},
                "train": {"steps": 3, "batch_size": 2, "trackers": [], "learning_rate": rate},
                "preview": {"pictures": 1, "steps": 2},
            },
        )
        execute(config, place)
        found.append(place)
    return found


def run_json(capsys, *arguments):
    code = main(["evaluate", *map(str, arguments), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert code == (2 if "error" in answer else 0), answer
    return answer["error"]["message"] if "error" in answer else answer


def test_a_run_is_measured_into_its_directory(runs, capsys):
    answer = run_json(capsys, runs[0], *FAST, *ASKED)
    written = json.loads((runs[0] / "evaluation.json").read_text())
    assert written["metrics"] == answer["metrics"]
    assert (runs[0] / "evaluation.png").is_file()
    assert answer["metrics"]["language_drift"] is None
    assert "class_prompts" in answer["missing"]["language_drift"]
    assert any("6 pictures are few" in note for note in answer["notes"])
    again = run_json(capsys, runs[0], *FAST, *ASKED, "--no-symptoms", "--into", runs[0].parent / "again")
    assert again["metrics"]["clip_i"] == pytest.approx(answer["metrics"]["clip_i"])
    assert again["symptoms"] == []


def test_a_figure_that_too_few_pictures_cannot_give_is_announced(runs, capsys, tmp_path):
    asked = ["--metrics", "kid,frechet_infinity", "--no-symptoms", "--into", str(tmp_path)]
    assert main(["evaluate", str(runs[0]), *FAST, *ASKED, *asked]) == 0
    said = " ".join(capsys.readouterr().out.split())
    before, _, after = said.partition("frechet_infinity will be missing: 6 pictures are drawn")
    assert "drawing" not in before
    assert "cannot be extrapolated from 6 pictures" in after


def test_the_function_returns_what_the_command_prints(runs, capsys, tmp_path):
    import inlay

    stated = {"steps": 2, "pictures": 2, "features": ["tabletop"], "symptoms": False, "prompts": ["a sks dog", "sks"]}
    answer = inlay.evaluate(runs[0], into=tmp_path / "function", **stated)
    printed = run_json(capsys, runs[0], *FAST, "-p", "a sks dog", "-p", "sks", "--no-symptoms", "--into", tmp_path)
    assert answer["metrics"] == printed["metrics"]
    assert json.loads((tmp_path / "function" / "evaluation.json").read_text())["metrics"] == answer["metrics"]


def test_two_runs_are_compared_in_pairs(runs, capsys, tmp_path):
    answer = run_json(
        capsys, runs[0], runs[1], *FAST, *ASKED, "--class-prompt", "a photo of dog", "--class-prompt", "dog",
        "--class-prompt", "a dog", "--into", tmp_path,
    )  # fmt: skip
    change = answer["comparison"]["clip_i"]
    assert change["paired"]
    difference = answer["metrics"]["clip_i"] - answer["against"]["metrics"]["clip_i"]
    assert change["value"] == pytest.approx(difference)
    assert answer["comparison"]["language_drift"]["paired"]
    assert main(["evaluate", str(runs[0]), str(runs[1]), *FAST, *ASKED, "--no-symptoms", "--into", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "difference" in shown
    assert "evaluation.png" in shown


def test_a_base_with_an_adapter_is_held_against_the_base(runs, tiny_base, photos, capsys, tmp_path):
    adapter = runs[1] / "pytorch_lora_weights.safetensors"
    answer = run_json(
        capsys,
        tiny_base,
        "--adapter",
        adapter,
        "-r",
        photos,
        *FAST,
        *ASKED,
        "--class-prompt",
        "a dog",
        "--into",
        tmp_path,
    )
    own = run_json(capsys, runs[1], *FAST, *ASKED, "--class-prompt", "a dog", "--into", tmp_path / "own")
    assert answer["target"]["kind"] == "base"
    assert answer["metrics"]["clip_t"] == pytest.approx(own["metrics"]["clip_t"], rel=1e-4)
    assert answer["metrics"]["language_drift"] == pytest.approx(own["metrics"]["language_drift"], abs=2e-2)


def test_folders_of_renders_against_the_world_and_saved_features(capsys, tmp_path):
    for number in (0, 1):
        folder = tmp_path / f"pictures{number}"
        folder.mkdir()
        images, captions, _ = World("test", seed=number + 1).render_many(range(30))
        for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
            Image.fromarray(image).save(folder / f"{place}.png")
            (folder / f"{place}.txt").write_text(caption)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "pictures0" / "0001-grid.png")
    (tmp_path / "pictures0" / "0001-grid.txt").write_text("an overview of inlay sample, which does not count")
    saved = tmp_path / "reference.safetensors"
    metrics = ["--metrics", "kid,frechet,precision,recall,density,coverage,clip_t,accuracy", "-f", "tabletop"]
    answer = run_json(
        capsys, tmp_path / "pictures0", tmp_path / "pictures1", "-r", "tabletop:test", "--references", 60, *metrics,
        "--save-reference", saved, "--into", tmp_path / "out",
    )  # fmt: skip
    assert answer["metric_details"]["kid"]["n"] == 30
    assert answer["metrics"]["accuracy"] > 0.85
    assert not answer["comparison"]["kid"]["clear"]  # both are of the world itself
    assert not answer["comparison"]["kid"]["paired"]
    assert any("kernel distance" in note for note in answer["notes"])  # 30 pictures are few for a covariance
    again = run_json(capsys, tmp_path / "pictures0", "-r", saved, *metrics, "--into", tmp_path / "again")
    assert again["metrics"] == pytest.approx(answer["metrics"])


def test_refusals_name_what_is_wrong(runs, capsys, tmp_path, photos):
    world = tmp_path / "world"
    write_folder("subject/pip", world)
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        Image.fromarray(World("test")[number].image).save(few / f"{number}.png")
    inside = ["--into", tmp_path / "out"]
    said = run_json(capsys, world, few, "-r", "tabletop:test", "--references", 20, "-f", "tabletop", *inside)
    assert "has 5 pictures" in said
    assert "give equally many" in said
    assert "which network looks" in run_json(capsys, world, *inside)
    assert "no extractor 'vgg'" in run_json(capsys, world, "-f", "vgg", *inside)
    assert "fetch https" in run_json(capsys, world, "-f", "inception", "-r", photos, *inside)
    assert "no metric fid" in run_json(capsys, world, "-f", "tabletop", "--metrics", "fid", *inside)
    assert "folder of pictures" in run_json(capsys, world, "--adapter", "x.safetensors", *inside)
    assert "give one of the two" in run_json(capsys, runs[0], "-p", "a", "--prompts", "b.txt")
    assert not (tmp_path / "out").exists()
