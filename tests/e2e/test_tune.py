"""The real command line, in processes of its own."""

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
# On GPUs it is `accelerate launch inlay ...`; that starts several processes on a CPU only through MPI.
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture
def run_file(tiny_base, photos, tmp_path) -> Path:
    settings = {
        "base": str(tiny_base),
        "data": {"source": str(photos), "prompt": "a photo of sks dog"},
        "method": {"name": "lora", "rank": 2},
        "train": {"steps": 6, "batch_size": 4, "checkpoint_every": 2, "learning_rate": 1e-3},
        "preview": {"pictures": 1, "steps": 2},
    }
    path = tmp_path / "dog.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def inlay(*arguments, launcher=(), **options):
    done = subprocess.run(
        [*launcher, *INLAY, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )
    return done


def same(one: Path, other: Path, **tolerance) -> None:
    first, second = load_file(one / LORA), load_file(other / LORA)
    assert first.keys() == second.keys()
    for name in first:
        if tolerance:
            torch.testing.assert_close(first[name], second[name], **tolerance)
        else:
            assert torch.equal(first[name], second[name]), name


def wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(2400):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.025)
    pytest.fail(f"{path} did not appear in a minute")


def test_killed_and_stopped_runs_end_in_the_same_bits(run_file, tmp_path):
    whole = inlay("tune", run_file, "train.steps=40", f"output={tmp_path / 'whole'}", "--json")
    assert whole.returncode == 0, whole.stderr
    record = json.loads(whole.stdout)
    assert record["status"] == "done"
    assert record["costs"]["steps"] == 40

    for name, number in [("killed", signal.SIGKILL), ("stopped", signal.SIGINT)]:
        command = [*INLAY, "tune", str(run_file), "train.steps=40", f"output={tmp_path / name}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(tmp_path / name / "checkpoints" / "step-00000004", process)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert not (tmp_path / name / LORA).exists()
        if number == signal.SIGINT:
            assert process.returncode == 130, errors
            assert "goes on from there" in output
        resumed = inlay("tune", run_file, "train.steps=40", f"output={tmp_path / name}", "--json")
        assert resumed.returncode == 0, resumed.stderr
        assert json.loads(resumed.stdout)["resumed_from_step"] >= 4
        same(tmp_path / "whole", tmp_path / name)


def test_two_processes_equal_one(run_file, tmp_path):
    one = inlay("tune", run_file, f"output={tmp_path / 'one'}")
    assert one.returncode == 0, one.stderr
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    two = inlay("tune", run_file, f"output={tmp_path / 'two'}", launcher=LAUNCH, env=environment)
    assert two.returncode == 0, two.stderr
    assert json.loads((tmp_path / "two" / "record.json").read_text())["processes"] == 2
    same(tmp_path / "one", tmp_path / "two", rtol=2e-3, atol=2e-5)


def test_samples_of_a_run(run_file, tmp_path):
    assert inlay("tune", run_file, f"output={tmp_path / 'run'}").returncode == 0
    prompt = ["--prompt", "a red dog", "--pictures", "2", "--steps", "2", "--json"]
    first = json.loads(inlay("sample", tmp_path / "run", *prompt).stdout)
    second = json.loads(inlay("sample", tmp_path / "run", *prompt).stdout)
    assert [picture["seed"] for picture in first["pictures"]] == [0, 1]
    for one, other in zip(first["pictures"], second["pictures"], strict=True):
        assert one["file"] != other["file"]
        assert Path(one["file"]).read_bytes() == Path(other["file"]).read_bytes()


def test_bad_input_is_one_message_and_exit_code_2(run_file, tmp_path):
    for overrides, said in [
        (["method.rnk=3"], "did you mean 'rank'"),
        (["data.source=/nowhere"], "/nowhere"),
        (["base=tabletopp"], "did you mean 'tabletop'"),
        (["train.batch_size=3", "train.accumulate=2"], "accumulate=2"),
    ]:
        done = inlay("tune", run_file, *overrides, f"output={tmp_path / 'run'}")
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists()
