"""Measuring while training, on a tiny pipeline with the real embedded extractor."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inlay.metrics.measure import difference
from inlay.run.config import RunConfig
from inlay.run.directory import read_trace
from inlay.run.evaluation.figures import restored
from inlay.run.evaluation.table import better
from inlay.run.job import execute
from inlay.run.load import validate
from tests.killed import KillAt, Killed

LORA = "pytorch_lora_weights.safetensors"
MEASURED = {
    "features": ["tabletop"],
    "prompts": ["a photo of sks dog", "a sks dog", "sks"],
    "steps": 2,
    "pictures": 2,
    "copies": 4,
}


@pytest.fixture(scope="module")
def make(tiny_base, photos):
    """Return a function that makes a configuration."""

    def build(evaluate, rate=1e-3, **sections):
        data = {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a photo of sks dog", "prior": None},
            "method": {"name": "lora", "rank": 2, "dropout": 0.1},
            "train": {"steps": 6, "batch_size": 2, "checkpoint_every": 2, "trackers": [], "learning_rate": rate},
            "preview": {"pictures": 1, "steps": 2},
            "evaluate": evaluate,
        }
        for name, values in sections.items():
            data[name] = {**data[name], **values}
        return validate(RunConfig, data)

    return build


@pytest.fixture(scope="module")
def measured(make, tmp_path_factory):
    """Return the directory of a run that was measured every other step."""
    place = tmp_path_factory.mktemp("measured") / "run"
    evaluate = {**MEASURED, "every": 2, "class_prompts": ["a photo of dog", "a dog", "dog"]}
    execute(make(evaluate, data={"validation": 3}, rate=2e-2), place)
    return place


def test_figures_are_in_record_trace_and_files(measured):
    record = json.loads((measured / "record.json").read_text())
    assert {"kid", "clip_t", "clip_i", "diversity", "validation_loss"} <= set(record["metrics"])
    assert [entry["step"] for entry in record["evaluation"]["history"]] == [0, 2, 4, 6]
    trace = read_trace(measured)
    assert [entry["step"] for entry in trace if "metrics" in entry] == [2, 4, 6]
    assert trace[-1]["metrics"]["kid"] == record["metrics"]["kid"]
    about = record["metric_details"]["clip_i"]
    assert (about["n"], about["references"], about["better"]) == (6, 3, "higher")
    assert about["interval"][0] < about["value"] < about["interval"][1]
    assert record["missing"].keys() == {"accuracy"}  # dogs are not of the rendered world
    assert record["metrics"]["accuracy"] is None
    written = json.loads((measured / "evaluation.json").read_text())
    assert written["metrics"] == record["metrics"]
    assert (measured / "evaluation.png").stat().st_size > 1000
    assert record["kept_step"] == 6
    assert record["costs"]["evaluation_seconds"] > 0
    for reached in record["costs"]["time_to_quality"].values():
        assert reached["steps"] in (2, 4, 6)


def test_a_figure_that_too_few_pictures_cannot_give_is_announced_before_training(make, tmp_path):
    class Hears(KillAt):
        def note(self, text):
            notes.append(text)

    notes: list[str] = []
    with pytest.raises(Killed):
        execute(make({**MEASURED, "metrics": ["kid", "frechet_infinity"]}), tmp_path / "run", Hears(1))
    assert sum("frechet_infinity will be missing: 6 pictures are drawn" in note for note in notes) == 1


def test_symptoms_are_answered_or_say_why_not(measured):
    record = json.loads((measured / "record.json").read_text())
    found = {symptom["name"]: symptom for symptom in record["symptoms"]}
    assert set(found) == {"language drift", "prior loss", "prompt neglect", "lost diversity", "copies"}
    for symptom in found.values():
        assert symptom["present"] in (True, False), symptom
        assert symptom["sentence"].endswith(".")
        assert symptom["figure"] in record["metrics"]
    assert "cannot be judged by 10 pictures of the base" in found["copies"]["sentence"]


def test_figures_of_records_can_be_compared_in_pairs(measured):
    record = json.loads((measured / "record.json").read_text())
    one = restored(record["metric_details"]["clip_i"])
    change = difference(one, one)
    assert change.paired
    assert change.value == 0


def test_the_loss_by_timestep_has_the_mean_of_the_loss(measured):
    record = json.loads((measured / "record.json").read_text())
    about = record["metric_details"]["validation_loss"]
    assert about["n"] == 3
    assert np.mean([one["value"] for one in about["by_timestep"]]) == pytest.approx(about["value"])
    assert about["value"] == record["metrics"]["validation_loss"]
    assert about["interval"][0] < about["value"] < about["interval"][1]
    assert len({one["timestep"] for one in about["by_timestep"]}) == 8


def test_measuring_changes_no_bits(make, measured, tmp_path):
    execute(make(None, data={"validation": 3}, rate=2e-2), tmp_path / "plain")
    one, other = load_file(measured / LORA), load_file(tmp_path / "plain" / LORA)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_best_steps_weights_become_the_result_also_after_a_kill(make, measured, tmp_path):
    history = json.loads((measured / "record.json").read_text())["evaluation"]["history"][1:]

    def best(name):
        sign = 1 if better(name) == "higher" else -1
        return max(history, key=lambda one: (sign * one["metrics"][name], -one["step"]))["step"]

    candidates = [name for name in ("clip_i", "kid", "clip_t", "diversity", "validation_loss") if best(name) != 6]
    assert candidates, "every metric is best at the end; train with a higher rate"
    name = candidates[0]
    config = make({**MEASURED, "every": 2, "keep_best": name, "symptoms": False}, data={"validation": 3}, rate=2e-2)
    with pytest.raises(Killed):
        execute(config, tmp_path / "best", KillAt(5))
    record = execute(config, tmp_path / "best").record
    assert record["resumed_from_step"] == 4
    assert record["kept_step"] == best(name)
    assert [entry["step"] for entry in record["evaluation"]["history"]] == [0, 2, 4, 6]
    kept = next(one for one in history if one["step"] == best(name))
    assert record["metrics"][name] == pytest.approx(kept["metrics"][name], rel=1e-4, abs=1e-6)
    assert not (tmp_path / "best" / "checkpoints").exists()

    shorter = make(None, data={"validation": 3}, rate=2e-2, train={"steps": best(name)})
    execute(shorter, tmp_path / "shorter")
    one, other = load_file(tmp_path / "best" / LORA), load_file(tmp_path / "shorter" / LORA)
    assert all(torch.equal(one[name], other[name]) for name in one)
    last = load_file(measured / LORA)
    assert any(not torch.equal(one[name], last[name]) for name in one)


def test_leaving_one_out_measures_what_holding_one_out_does(make, tmp_path):
    evaluate = {**MEASURED, "symptoms": False, "leave_one_out": True}
    record = execute(make(evaluate, data={"count": 3}), tmp_path / "run").record
    about = record["metric_details"]["leave_one_out_loss"]
    assert about["n"] == 3
    assert record["metrics"]["leave_one_out_loss"] == about["by_step"][-1]["value"]
    assert about["best_step"] in [one["step"] for one in about["by_step"]]
    # A run that holds one picture out is one of the folds, and so lies among them.
    held = execute(make(None, data={"count": 3, "validation": 1}), tmp_path / "held").record["metrics"][
        "validation_loss"
    ]
    low, high = about["interval"]
    assert low - (high - low) < held < high + (high - low)


def test_half_precision_is_for_the_denoiser_alone(make, measured, tmp_path):
    evaluate = {**MEASURED, "class_prompts": ["a dog"]}
    record = execute(make(evaluate, train={"steps": 1, "precision": "bf16"}), tmp_path / "run").record
    full = json.loads((measured / "record.json").read_text())["evaluation"]["history"][0]["metrics"]
    assert record["evaluation"]["history"][0]["metrics"]["clip_t"] == pytest.approx(full["clip_t"], abs=0.05)


def test_too_many_pictures_to_leave_one_out_have_a_reason(make, tmp_path):
    evaluate = {**MEASURED, "symptoms": False, "leave_one_out": True, "metrics": ["clip_i"]}
    record = execute(make(evaluate, data={"count": 2}, train={"steps": 1}), tmp_path / "run").record
    assert record["metrics"]["leave_one_out_loss"] is None
    assert "use data.validation" in record["missing"]["leave_one_out_loss"]
