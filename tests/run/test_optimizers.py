"""Runs with every optimizer: what is planned, trained and saved."""

import json
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from inlay.errors import ConfigError
from inlay.run.check import check
from inlay.run.config import RunConfig
from inlay.run.directory import read_trace
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.run.plan import make_plan
from inlay.run.reporter import Silent
from inlay.train.checkpoint import checkpoints, load_checkpoint
from inlay.train.optimizers import Optimizer

NAMES = [kind().name for kind in get_args(get_args(Optimizer)[0])]
LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture
def make(tiny_base, photos):
    """Return a function that makes a short run."""

    def build(optimizer, method="lora", steps=3, **train):
        data = {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a photo of sks dog"},
            "method": method,
            "train": {"steps": steps, "batch_size": 2, "trackers": [], "optimizer": optimizer, **train},
            "preview": {"pictures": 1, "steps": 2},
        }
        return validate(RunConfig, data)

    return build


@pytest.mark.parametrize("name", NAMES)
def test_a_run_trains_and_says_with_what(make, tmp_path, name):
    execute(make(name, learning_rate=None if name == "prodigy" else 1e-2), tmp_path / "run")
    tensors = load_file(tmp_path / "run" / LORA)
    assert all(float(value.abs().max()) > 0 for key, value in tensors.items() if "lora_B" in key)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["config"]["train"]["optimizer"]["name"] == name
    rates = [entry["learning_rate"] for entry in read_trace(tmp_path / "run")]
    assert all(rate < 1e-3 for rate in rates) if name == "prodigy" else rates == [1e-2] * 3


class Look(Silent):
    """Keeps what the last checkpoint of a run holds, before the run removes it."""

    def __init__(self, directory):
        self.directory = directory

    def phase(self, text):
        if text == "saving":
            self.tensors, self.optimizers, _ = load_checkpoint(checkpoints(self.directory / "checkpoints")[-1])


def test_schedule_free_saves_the_average(make, tmp_path):
    look = Look(tmp_path / "run")
    execute(make("schedule_free", learning_rate=1e-2, checkpoint_every=3), look.directory, look)
    for name, value in load_file(look.directory / LORA).items():
        assert not torch.equal(value, look.tensors[f"parameter.0.{name}"]), name


@pytest.mark.parametrize(
    ("name", "share"), [("adamw", 2.0), ("schedule_free", 2.0), ("prodigy", 4.0), ("muon", 1.0), ("adafactor", 0.2)]
)
def test_the_plan_counts_what_the_optimizer_keeps(make, name, share):
    plan = make_plan(make(name))
    kept = plan.memory.optimizer_bytes / (4 * plan.trainable_parameters)
    assert kept == pytest.approx(share) if name != "adafactor" else 0 < kept < share
    assert plan.disk.checkpoints_bytes == 2 * (4 * plan.trainable_parameters + plan.memory.optimizer_bytes)


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_the_plan_s_count_is_the_checkpoint_s(make, tmp_path, name):
    config = make(name, method={"name": "lora", "targets": "everything"}, steps=1, checkpoint_every=1)
    look = Look(tmp_path / "run")
    execute(config, look.directory, look)
    kept = sum(
        4 * value.numel()
        for optimizer in look.optimizers["optimizer"]
        for state in optimizer["state"].values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key != "step"
    )
    assert kept == make_plan(config).memory.optimizer_bytes


def test_a_missing_package_is_said_before_any_work(make, monkeypatch):
    monkeypatch.setattr("inlay.train.optimizers.find_spec", lambda package: None)
    for refuse in (check, make_plan):
        with pytest.raises(ConfigError, match=r"train.optimizer=prodigy: its package prodigyopt is not installed"):
            refuse(make("prodigy"))
