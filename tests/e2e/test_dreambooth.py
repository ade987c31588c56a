"""Prior preservation from the real command line: killed while it draws, gone on with, shared by a second run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

INLAY = [str(Path(sys.executable).with_name("inlay"))]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture
def run_file(tiny_base, photos, tmp_path) -> Path:
    settings = {
        "base": str(tiny_base),
        "data": {
            "source": str(photos),
            "prompt": "a photo of sks dog",
            "prior": {"prompt": "a photo of the dog", "images": 40, "steps": 8},
        },
        "method": {"name": "lora", "rank": 2},
        "train": {"steps": 3, "batch_size": 2, "learning_rate": 1e-3},
        "preview": {"pictures": 1, "steps": 2},
    }
    path = tmp_path / "dog.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def inlay(cache: Path, *arguments, launcher=()) -> str:
    environment = {**os.environ, "INLAY_CACHE": str(cache), "GLOO_SOCKET_IFNAME": "lo"}
    command = [*launcher, *INLAY, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def drawn(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.glob("class-images/*/[0-9]*.png")}


def planned(run_file: Path, cache: Path, *overrides: str) -> dict:
    return json.loads(inlay(cache, "plan", run_file, *overrides, "--json"))["data"]["prior"]


def test_killed_while_drawing_and_gone_on_with(run_file, tmp_path):
    whole, cache = tmp_path / "whole-cache", tmp_path / "killed-cache"
    inlay(whole, "tune", run_file, f"output={tmp_path / 'whole'}")
    command = [*INLAY, "tune", str(run_file), f"output={tmp_path / 'killed'}"]
    process = subprocess.Popen(command, env={**os.environ, "INLAY_CACHE": str(cache)}, stdout=subprocess.DEVNULL)
    while not drawn(cache):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    some = len(drawn(cache))
    assert 0 < some < 40
    assert planned(run_file, cache)["kept"] == some
    said = inlay(cache, "tune", run_file, f"output={tmp_path / 'killed'}")
    assert "drawing class pictures: 40 done" in said
    assert drawn(cache) == drawn(whole)
    one, other = load_file(tmp_path / "whole" / LORA), load_file(tmp_path / "killed" / LORA)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "killed" / "class_images.png").is_file()

    assert planned(run_file, cache, "method=bitfit")["to_draw"] == 0
    assert "drawing class pictures" not in inlay(cache, "tune", run_file, "method=bitfit", f"output={tmp_path / 'b'}")


def test_two_processes_draw_and_train_as_one(run_file, tmp_path):
    inlay(tmp_path / "cache-1", "tune", run_file, f"output={tmp_path / 'one'}")
    inlay(tmp_path / "cache-2", "tune", run_file, f"output={tmp_path / 'two'}", launcher=LAUNCH)
    assert drawn(tmp_path / "cache-1") == drawn(tmp_path / "cache-2")
    one, other = load_file(tmp_path / "one" / LORA), load_file(tmp_path / "two" / LORA)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=2e-3, atol=2e-5)
    traces = [
        [json.loads(line) for line in (tmp_path / name / "trace.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for name in ("loss", "instance_loss", "prior_loss"):
        first, second = ([entry[name] for entry in trace] for trace in traces)
        assert first == pytest.approx(second, rel=1e-4)
