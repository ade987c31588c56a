import json

import pytest
import yaml

from inlay.cli.main import main


@pytest.fixture
def run_file(tiny_base, photos, tmp_path):
    path = tmp_path / "dog.yaml"
    settings = {
        "base": str(tiny_base),
        "data": {"source": str(photos), "prompt": "a photo of sks dog", "validation": 1},
        "method": {"name": "lora", "rank": 1},
        "train": {"steps": 2, "batch_size": 2, "trackers": []},
        "preview": {"pictures": 1, "steps": 1},
    }
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_real_runs_become_a_page_a_table_and_json(run_file, tmp_path, capsys):
    for method in ("lora", "bitfit"):
        assert main(["tune", run_file, f"method={method}", f"output={tmp_path / method}"]) == 0
    capsys.readouterr()
    page = tmp_path / "out" / "page.html"
    arguments = ["compare", str(tmp_path / "lora"), str(tmp_path / "bitfit"), "--into", str(page)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "held-out loss" in shown
    assert "opens in any browser" in shown
    text = page.read_text()
    assert text.count("data:image/webp") == 1 + 1 + 2 + 1  # two training pictures, the base, and the runs
    assert main([*arguments, "--json", "-p", "a dog", "-n", "2", "--steps", "1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in record["runs"]] == ["lora", "bitfit"]
    assert record["page_bytes"] == page.stat().st_size
    assert "“a dog”" in page.read_text()


def test_mistakes_are_refused_before_any_work(tmp_path, capsys):
    assert main(["compare", str(tmp_path / "absent")]) == 2
    assert "no such directory" in capsys.readouterr().err
    (tmp_path / "mine.html").write_text("mine")
    assert main(["compare", str(tmp_path), "--into", str(tmp_path / "mine.html")]) == 2
    assert "no page of `inlay compare`" in capsys.readouterr().err
