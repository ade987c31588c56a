import io
import json
import tarfile

import pytest
from PIL import Image

from inlay.cli.main import main


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))


def test_a_folder_becomes_shards_that_a_plan_counts(photos, tmp_path, capsys, tiny_base):
    shards = tmp_path / "shards"
    assert main(["shard", str(photos), "--into", str(shards), "--pictures", "4", "--prompt", "a dog", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["source"] == str(shards / "{000..001}.tar")
    assert made["pictures"] == 6
    assert made["skipped"] == []
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        f"base: {tiny_base}\ndata: {{source: '{made['source']}'}}\nmethod: lora\ntrain: {{steps: 1}}\n",
        encoding="utf-8",
    )
    assert main(["plan", str(run_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["pictures"] == 6


def test_classes_are_the_folders(photos, tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "0.png").write_bytes((photos / "0.png").read_bytes())
    assert main(["shard", str(tmp_path / "pictures"), "--into", str(tmp_path / "shards"), "--classes"]) == 0
    assert "2 pictures in 1 shards" in capsys.readouterr().out
    assert (tmp_path / "shards" / "classes.txt").read_text() == "cat\ndog\n"
    with tarfile.open(tmp_path / "shards" / "000.tar") as archive:
        assert archive.getnames() == ["000000000.png", "000000000.cls", "000000001.png", "000000001.cls"]


def test_shards_of_others_are_examined(tmp_path, capsys):
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in [("0.png", whole.getvalue()), ("1.png", b"broken")]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert main(["shard", str(tmp_path / "*.tar")]) == 0
    said = capsys.readouterr().out
    assert "1 pictures in 1 shards can be used, 1 cannot" in said
    assert "note: a.tar/1.png: not a picture format" in said
    assert main(["shard", str(tmp_path / "*.tar"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"][0]["id"] == "a.tar/1.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "cache"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [([], "--into: give a new folder"), (["--into", "x", "--prompt", "a", "--classes"], "give either --prompt")],
)
def test_what_does_not_fit_together_is_refused(photos, arguments, problem, capsys):
    assert main(["shard", str(photos), *arguments]) == 2
    assert problem in capsys.readouterr().err
