import json

import pytest

from inlay.cli.main import main
from tests.tiny import make_tiny_pipeline


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    make_tiny_pipeline(folder / "base")
    path = folder / "run.yaml"
    path.write_text(f"base: {folder / 'base'}\ndata: no/such/folder\nmethod: lora\ntrain: {{steps: 7}}\n")
    return str(path)


def test_tables_and_a_verdict(run_file, capsys):
    assert main(["plan", run_file, "method.rank=3"]) == 0
    shown = capsys.readouterr().out
    for text in ("cross-attention", "down_blocks.0", "activations", "drawing previews", "autoencoder", "checkpoints"):
        assert text in shown
    assert "7 steps, 28 pictures seen" in shown
    assert "no/such/folder: not examined" in shown
    last = shown.strip().splitlines()[-1]
    assert last.startswith("lora trains 7.49 k parameters (")
    assert last.endswith(": fits")


def test_json_holds_the_resolved_run_file_and_the_plan(run_file, capsys):
    assert main(["plan", run_file, "method.rank=3", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["config"]["method"]["rank"] == 3
    assert plan["config"]["train"]["batch_size"] == 4
    assert plan["trainable_parameters"] == 7488
    assert plan["memory"]["peak_bytes"] > 0
    assert plan["data"]["pictures"] is None
    assert "probe" not in plan


def test_the_effective_weight_is_drawn(run_file, tmp_path, capsys):
    picture = tmp_path / "w.png"
    assert main(["plan", run_file, "objective.weighting.name=min_snr", "--png", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "moves 7.81 % of the weight to other timesteps than the plain loss" in shown
    assert f"drawn into {picture}" in shown
    assert "█" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mistakes_end_with_one_message(run_file, capsys):
    assert main(["plan", run_file, "method.rnak=3"]) == 2
    assert "did you mean 'rank'?" in capsys.readouterr().err
    assert main(["plan", run_file, "method.targets=[nowhere]", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "TargetError"
    assert main(["plan", run_file, "base=sd-v1.4", "--probe"]) == 2
    assert "architecture without weights" in capsys.readouterr().err


def test_a_plan_for_a_gpu_elsewhere(run_file, capsys):
    assert main(["plan", run_file, "base=sd-v1.4", "train.precision=bf16", "--gpu", "8GiB"]) == 0
    shown = capsys.readouterr().out
    assert shown.strip().endswith("of 7.50 GiB available on a GPU with 8.00 GiB: fits")
    assert "Python and libraries" not in shown  # which lie in the host's memory
    assert "no time" not in shown
    assert main(["plan", run_file, "base=sd-v1.4", "--gpu", "2GiB", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not plan["fits"]
    assert plan["machine"]["device"] == "cuda"
    for wrong, message in {"0.4GiB": "CUDA alone takes about 512 MiB", "much": "--gpu: 'much' is no size"}.items():
        assert main(["plan", run_file, "--gpu", wrong]) == 2
        assert message in capsys.readouterr().err
    assert main(["plan", run_file, "--gpu", "8GiB", "--probe"]) == 2
    assert "--probe measures this machine" in capsys.readouterr().err


def test_a_probe_is_shown(run_file, tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    sections = ["data.prompt=a dog", f"data.source={tmp_path}", "train.batch_size=1"]
    assert main(["plan", run_file, *sections, "--probe"]) == 0
    shown = capsys.readouterr().out
    assert "two steps, measured" in shown
    assert "done in about" in shown.strip().splitlines()[-1]
