"""`inlay merge` and `inlay extract` on the command line: what they say, and what they refuse."""

from __future__ import annotations

import json

import pytest

from inlay.artifacts import diffusers_lora
from inlay.artifacts.layers import Updates
from inlay.cli.main import main
from tests.artifacts.specimens import LAYERS, low_rank, tiny_blueprint

TINY = tiny_blueprint()


@pytest.fixture
def files(tmp_path):
    def write(name, rank, seed):
        layers = {layer: low_rank(TINY.shapes[layer], rank, seed=seed + i) for i, layer in enumerate(LAYERS[:3])}
        return str(diffusers_lora.write(tmp_path / name, Updates(layers), [TINY]))

    return [write("one.safetensors", 2, 0), write("two.safetensors", 3, 50)]


def test_one_lora_is_exact_or_says_what_it_lost(files, tiny_base, tmp_path, capsys):
    exact, small = str(tmp_path / "exact.safetensors"), str(tmp_path / "small.safetensors")
    assert main(["merge", *files, "--base", str(tiny_base), "-o", exact]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "merged 2 files into one LoRA of 3 layers" in said
    assert "rank 5, exact" in said
    assert main(["merge", *files, "--weights", "1,0.5", "--rank", "2", "--base", str(tiny_base), "-o", small]) == 0
    said = capsys.readouterr().out
    assert "rank 2, relative error" in said
    assert "layers that lost most" in said


def test_json_says_it_layer_by_layer(files, tiny_base, tmp_path, capsys):
    output = str(tmp_path / "m.safetensors")
    assert main(["merge", *files, "-w", "1,0.5", "--rank", "2", "--base", str(tiny_base), "-o", output, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["output"] == output
    assert told["files"] == [{"file": files[0], "weight": 1.0}, {"file": files[1], "weight": 0.5}]
    assert [layer["rank"] for layer in told["layers"]] == [2, 2, 2]
    assert 0 < told["relative_error"] < 1


def test_a_model_is_merged_and_extracted_again(files, tiny_base, tmp_path, capsys):
    model, lora = str(tmp_path / "model"), str(tmp_path / "lora.safetensors")
    assert main(["merge", *files, "--base", str(tiny_base), "-o", model]) == 0
    said = capsys.readouterr().out
    assert "into 3 layers of" in said
    assert "the changed weights moved by" in said
    assert main(["extract", model, str(tiny_base), "--rank", "5", "-o", lora, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in told["layers"]] == sorted(LAYERS[:3], key=list(TINY.shapes).index)
    assert told["relative_error"] < 1e-5
    assert told["left_out"] == {}
    again = str(tmp_path / "again.safetensors")
    assert main(["extract", model, str(tiny_base), "--energy", "0.5", "-o", again]) == 0
    said = capsys.readouterr().out
    assert "a LoRA of 3 layers" in said
    assert "relative error" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "m.safetensors", "--weights", "1;2"], "--weights 1;2: give one number for each file"),
        (["-o", "m.safetensors", "--weights", "1"], "--weights gives 1 numbers for 2 files"),
        (["-o", "model"], "--output model: a model needs --base"),
        (["-o", "model", "--base", "x", "--rank", "3"], "--rank and --format are for one LoRA"),
        (["-o", "m.safetensors", "--format", "peft"], "--format peft: allowed here"),
    ],
)
def test_merge_refuses(files, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["merge", *files, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.safetensors"], "give either --rank, such as 16, or --energy"),
        (["-o", "x.safetensors", "--rank", "1", "--energy", "0.5"], "give either --rank"),
        (["-o", "x.safetensors", "--energy", "1.5"], "--energy 1.5: a share above 0 and at most 1"),
        (["-o", "x.pt", "--rank", "1"], "must end in .safetensors"),
        (["-o", "x.safetensors", "--rank", "1"], "nowhere"),
    ],
)
def test_extract_refuses(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["extract", "nowhere", "nothing", *arguments]) == 2
    assert message in capsys.readouterr().err
