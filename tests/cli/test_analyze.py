import json

import pytest
import yaml

from inlay.cli.main import main


@pytest.fixture
def run_file(tiny_base, photos, tmp_path):
    path = tmp_path / "dog.yaml"
    settings = {
        "base": str(tiny_base),
        "data": {"source": str(photos), "prompt": "a photo of sks dog"},
        "method": {"name": "lora", "rank": 1},
        "train": {"steps": 1, "batch_size": 2},
    }
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_both_analyses_write_numbers_and_a_picture(run_file, tmp_path, capsys):
    small = ["--bins", "2", "--samples", "2", "--out", str(tmp_path / "out")]
    assert main(["analyze", "conflict", run_file, *small, "--train-on", "1", "--draws", "2"]) == 0
    shown = capsys.readouterr().out
    assert "trained on 500 to 1000: its own loss changed by" in shown
    assert main(["analyze", "pareto", run_file, *small, "--draws", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["draws"] == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "conflict.json",
        "conflict.png",
        "pareto.json",
        "pareto.png",
    ]
    saved = json.loads((tmp_path / "out" / "pareto.json").read_text())
    assert record == {"files": record["files"], **saved}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pareto", "--train-on", "1"], "--train-on is for `inlay analyze conflict`"),
        (["conflict", "--train-on", "1,x"], "must be whole numbers with commas"),
    ],
)
def test_options_of_the_other_analysis_are_refused(run_file, capsys, arguments, message):
    assert main(["analyze", arguments[0], run_file, *arguments[1:]]) == 2
    assert message in capsys.readouterr().err


def test_an_earlier_result_is_not_replaced(run_file, tmp_path, capsys):
    (tmp_path / "pareto.json").write_text("mine")
    assert main(["analyze", "pareto", run_file, "--out", str(tmp_path)]) == 2
    assert "pareto.json is there already" in capsys.readouterr().err
    assert (tmp_path / "pareto.json").read_text() == "mine"
