"""Objectives with state over several processes, through the real command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

INLAY = str(Path(sys.executable).with_name("inlay"))
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]


@pytest.fixture
def run_file(tiny_base, photos, tmp_path) -> Path:
    settings = {
        "base": str(tiny_base),
        "data": {"source": str(photos), "prompt": "a photo of sks dog"},
        "method": {"name": "lora", "rank": 2},
        "train": {"steps": 5, "batch_size": 4, "learning_rate": 1e-2, "trackers": []},
        "preview": {"pictures": 1, "steps": 1},
    }
    path = tmp_path / "dog.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        "objective.weighting={name: uncertainty, learning_rate: 0.1}",
        "objective.weighting={name: frank_wolfe, every: 2, bins: 3, samples: 2}",
        "objective.timesteps={name: loss_second_moment, bins: 2, history: 2}",
    ],
    ids=lambda text: text.split("name: ")[1].split(",")[0],
)
def test_two_processes_equal_one(run_file, tmp_path, objective):
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    traces = []
    for name, launcher in [("one", []), ("two", LAUNCH)]:
        command = [*launcher, INLAY, "tune", str(run_file), objective, f"output={tmp_path / name}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "trace.jsonl").read_text().splitlines()
        traces.append([json.loads(line)["loss"] for line in lines])
    assert json.loads((tmp_path / "two" / "record.json").read_text())["processes"] == 2
    assert len(traces[0]) == 5
    assert traces[1] == pytest.approx(traces[0], rel=1e-3)
