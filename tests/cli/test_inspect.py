"""`inlay inspect` on the command line: a table with bars, and JSON."""

from __future__ import annotations

import json

import pytest

from inlay.artifacts import diffusers_lora
from inlay.artifacts.inspection import Strength
from inlay.artifacts.layers import Updates
from inlay.cli.inspect import BAR, bar, gather
from inlay.cli.main import main
from tests.artifacts.specimens import LAYERS, low_rank, tiny_blueprint

TINY = tiny_blueprint()


@pytest.fixture
def file(tmp_path):
    layers = {layer: low_rank(TINY.shapes[layer], 2, seed=i) for i, layer in enumerate(LAYERS)}
    return str(diffusers_lora.write(tmp_path / "rex.safetensors", Updates(layers, {"ss_steps": "30"}), [TINY]))


def test_a_file_is_told_in_a_table(file, tiny_base, capsys):
    assert main(["inspect", file, "--base", str(tiny_base)]) == 0
    said = capsys.readouterr().out
    assert "LoRA (diffusers)" in said
    assert "of base" in said
    assert "█" in said
    assert "norm of all together" in said
    assert [line.split() for line in said.splitlines() if line.startswith("steps")] == [["steps", "30"]]


def test_json_is_complete(file, tiny_base, capsys):
    assert main(["inspect", file, "--base", str(tiny_base), "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)["files"]
    assert {layer["name"] for layer in told["layers"]} == set(LAYERS)
    assert all(layer["relative"] > 0 for layer in told["layers"])
    assert told["metadata"]["ss_steps"] == "30"


def test_models_and_mistakes(tiny_base, tmp_path, capsys):
    assert main(["inspect", str(tiny_base)]) == 0
    assert "text_encoder" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "gone")]) == 2
    assert "no such file or directory" in capsys.readouterr().err


def test_blocks_gather_their_layers():
    def layer(name, norm, relative, rank=2):
        return Strength(name, "LoRA", 10, norm, rank=rank, relative=relative)

    blocks, counts = gather(
        [
            layer("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", 3.0, 0.5),
            layer("unet.down_blocks.0.attentions.1.proj_in", 4.0, 0.5, rank=3),
            layer("unet.down_blocks.0.resnets.0.conv1", 1.0, 0.25),
            layer("unet.mid_block.attentions.0.proj_in", 1.0, None),
            layer("unet.conv_in", 1.0, None),
            layer("text_encoder.text_model.encoder.layers.0.mlp.fc1", 1.0, None),
        ]
    )
    assert counts == [2, 1, 1, 1, 1]
    assert [block.name for block in blocks] == [
        *("unet.down_blocks.0.attentions", "unet.down_blocks.0.resnets", "unet.mid_block.attentions"),
        *("unet.conv_in", "text_encoder"),
    ]
    assert blocks[0].norm == pytest.approx(5)
    assert blocks[0].relative == pytest.approx(0.5)
    assert (blocks[0].rank, blocks[1].rank, blocks[0].parameters) == (None, 2, 20)
    assert blocks[2].relative is None


def test_bars_are_as_long_as_shares():
    assert bar(0) == ""
    assert bar(1) == "█" * BAR
    assert bar(0.5) == "█" * (BAR // 2)
    assert bar(1 / (8 * BAR)) == "▏"
