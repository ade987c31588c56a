import json

import pytest
import torch
from safetensors.torch import load_file

from inlay.artifacts.formats import FORMATS
from inlay.artifacts.layers import Updates
from inlay.cli.main import main
from tests.artifacts.specimens import LAYERS, hadamard, low_rank, tiny_blueprint

TINY = tiny_blueprint()


@pytest.fixture
def source(tmp_path):
    layers = {name: low_rank(TINY.shapes[name], alpha=6.0) for name in LAYERS}
    return FORMATS["diffusers"].write(tmp_path / "lora.safetensors", Updates(layers), [TINY])


def test_there_and_back(source, tiny_base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(source), "--format", "kohya", "--base", str(tiny_base)]) == 0
    assert "diffusers -> kohya: lora-kohya.safetensors, " in capsys.readouterr().out
    assert main(["import", "lora-kohya.safetensors", "--base", str(tiny_base), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == "lora-kohya-inlay.safetensors"
    assert (said["from"], said["format"]) == ("kohya", "inlay")
    first, again = load_file(source), load_file(tmp_path / said["path"])
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_directory_is_reported_with_its_files(source, tiny_base, tmp_path, capsys):
    arguments = ["--format", "peft", "--base", str(tiny_base), "--output", str(tmp_path / "peft"), "--json"]
    assert main(["export", str(source), *arguments]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["files"]) == 2
    assert said["bytes"] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "{source}", "--format", "safetensors"], "no such format; allowed: inlay, diffusers, peft, kohya"),
        (["export", "{folder}/gone", "--format", "kohya"], "gone: no such file"),
        (["export", "{source}", "--format", "kohya", "--base", "{base}", "-o", "{source}"], "exists already"),
        (["import", "{source}", "--base", "nothing"], "--base nothing: no such directory or file"),
        (["export", "{loha}", "--format", "kohya", "--base", "{base}"], "attn1.to_q is a LoHa"),
    ],
)
def test_mistakes_are_one_message(source, tiny_base, tmp_path, capsys, arguments, message):
    loha = {LAYERS[0]: hadamard(TINY.shapes[LAYERS[0]])}
    path = FORMATS["lycoris"].write(tmp_path / "loha.safetensors", Updates(loha), [TINY])
    places = {"source": source, "folder": tmp_path, "base": tiny_base, "loha": path}
    assert main([argument.format(**places) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
