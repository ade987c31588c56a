import json

import pytest

from inlay.cli.main import main
from inlay.study.cells import expand
from inlay.study.directory import write_design
from tests.study.studies import make


@pytest.fixture
def study(tmp_path, tiny_base, photos):
    """Return a study directory: two pairs, two scales, two seeds; one cell has no record yet."""
    stated = make(tiny_base, photos, seeds=2, metrics=["clip_i"], measured=["clip_i"], title="Pairs and scales")
    expansion = expand(stated)
    write_design(tmp_path / "study", stated, expansion)
    for number, cell in enumerate(expansion.main[:-1]):
        place = tmp_path / "study" / "cells" / cell.id
        place.mkdir(parents=True)
        value = {"CA": 0.8, "SA": 0.6}[cell.factors["pair"]] + 0.003 * (number * 5 % 7)
        record = {
            "status": "done",
            "base": {"name": str(tiny_base), "hash": "0" * 64},
            "metrics": {"clip_i": value},
            "missing": {},
            "costs": {"training_seconds": 1.0},
        }
        (place / "record.json").write_text(json.dumps(record))
    return tmp_path / "study"


def test_report_of_a_study_directory(study, capsys):
    assert main(["study", "report", str(study), "--permutations", "199"]) == 0
    said = capsys.readouterr().out
    assert "7 of 8 cells have a result; 1 has not run" in said
    assert "pair matters for clip_i" in " ".join(said.split())
    folder = study / "report"
    assert f"look at      {folder / 'index.html'}" in said
    assert "Pairs and scales" in (folder / "index.html").read_text()
    assert (folder / "tables" / "anova-clip_i.tex").read_text().startswith("\\begin{table}")
    assert (folder / "pictures" / "effect-pair-clip_i.png").read_bytes().startswith(b"\x89PNG")


def test_json_to_another_folder(study, tmp_path, capsys):
    assert main(["study", "report", str(study), "--out", str(tmp_path / "out"), "--permutations", "99", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cells"] == {"done": 7, "failed": 0, "missing": 1}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["summary"] == found["summary"]
    assert not (study / "report").exists()


def test_levels_are_left_out(study, capsys):
    assert main(["study", "report", str(study), "--without", "pair=SA", "--without", "seed=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["cells"].values()) == 2
    assert "Left out, as asked: 6 cells of pair=SA and of seed=1." in {one["text"] for one in found["summary"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "no such study directory"),
        (["--metric", "fid"], "no cell has it"),
        (["--without", "pair=XY"], "--without pair=XY: pair has no such level; it has: CA, SA"),
    ],
)
def test_mistakes(study, options, message, capsys):
    target = [] if options[0] == "nowhere" else [str(study)]
    assert main(["study", "report", *target, *options]) == 2
    assert message in capsys.readouterr().err
