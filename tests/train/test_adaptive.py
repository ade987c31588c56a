"""Objectives with state, in real runs of a tiny model."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from inlay.objective.live import LiveObjective
from inlay.run.config import RunConfig
from inlay.run.directory import read_trace
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.train.checkpoint import checkpoints, load_checkpoint
from tests.killed import KillAt, Killed

LORA = "pytorch_lora_weights.safetensors"
OBJECTIVES = {
    "uncertainty": {"weighting": {"name": "uncertainty", "channels": 16}},
    "ugd": {"weighting": {"name": "ugd", "every": 3, "bins": 3, "samples": 2}},
    "frank_wolfe": {"weighting": {"name": "frank_wolfe", "every": 3, "bins": 3, "samples": 2}},
    "importance": {"timesteps": {"name": "loss_second_moment", "bins": 2, "history": 2}},
}


@pytest.fixture(scope="module")
def make(tiny_base, photos):
    """Return a function that makes the configuration of a short run with an objective."""

    def build(objective, **train):
        data = {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a photo of sks dog"},
            "method": {"name": "lora", "rank": 2},
            "objective": objective,
            "train": {
                "steps": 6,
                "batch_size": 4,
                "checkpoint_every": 2,
                "learning_rate": 1e-2,
                "trackers": [],
                **train,
            },
            "preview": {"pictures": 1, "steps": 1},
        }
        return validate(RunConfig, data)

    return build


@pytest.fixture(scope="module", params=OBJECTIVES.values(), ids=OBJECTIVES.keys())
def whole(request, make, tmp_path_factory):
    """Return the configuration of a run with some objective, and its directory."""
    config = make(request.param)
    directory = tmp_path_factory.mktemp("whole")
    execute(config, directory / "run")
    return config, directory / "run"


def losses(directory):
    return [entry["loss"] for entry in read_trace(directory)]


def test_a_killed_run_reaches_the_same_bits(whole, tmp_path):
    config, expected = whole
    with pytest.raises(Killed):
        execute(config, tmp_path / "run", KillAt(5))
    tensors, _, _ = load_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert any(name.startswith("adaptive.") for name in tensors)
    resumed = execute(config, tmp_path / "run")
    assert resumed.record["resumed_from_step"] == 4
    assert losses(tmp_path / "run") == losses(expected)
    first, second = load_file(expected / LORA), load_file(tmp_path / "run" / LORA)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_state_acts_and_must_be_saved(whole, tmp_path, monkeypatch):
    """Without its state a resumed run would come to other losses: what the test above sees is not trivial."""
    config, expected = whole
    with pytest.raises(Killed):
        execute(config, tmp_path / "run", KillAt(5))
    monkeypatch.setattr(LiveObjective, "load", lambda self, state: None)
    execute(config, tmp_path / "run")
    assert losses(tmp_path / "run")[:4] == losses(expected)[:4]
    assert losses(tmp_path / "run")[4:] != losses(expected)[4:]


def test_micro_batches_change_only_rounding(whole, tmp_path):
    config, expected = whole
    cut = config.model_copy(update={"train": config.train.model_copy(update={"accumulate": 2})})
    execute(cut, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(expected), rel=1e-3)


def test_neither_the_result_nor_the_average_holds_the_state(make, tmp_path):
    config = make(OBJECTIVES["uncertainty"], ema={"decay": 0.5})
    with pytest.raises(Killed):
        execute(config, tmp_path / "run", KillAt(5))
    tensors, pickled, _ = load_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    parameters = [name for name in tensors if name.startswith("parameter.")]
    averages = [name for name in tensors if name.startswith("average.")]
    assert len(averages) == len(parameters) + 1  # and the number of updates
    assert {"adaptive.weighting.linear.weight", "adaptive.weighting.linear.bias"} < set(tensors)
    assert tensors["adaptive.weighting.linear.weight"].abs().max() > 0
    assert set(pickled) == {"optimizer", "scaler", "adaptive"}
    execute(config, tmp_path / "run")
    execute(make({}, ema={"decay": 0.5}), tmp_path / "plain")
    with safe_open(tmp_path / "run" / LORA, "pt") as one, safe_open(tmp_path / "plain" / LORA, "pt") as other:
        assert list(one.keys()) == list(other.keys())


def test_uncertainty_learns_at_its_own_rate(make, tmp_path):
    def learned(name, objective, **train):
        config = make({"weighting": {"name": "uncertainty", **objective}}, checkpoint_every=1, **train)
        with pytest.raises(Killed):
            execute(config, tmp_path / name, KillAt(2))
        [path] = checkpoints(tmp_path / name / "checkpoints")
        return load_checkpoint(path)[0]["adaptive.weighting.linear.weight"]

    slow = learned("slow", {"learning_rate": 1e-3})
    torch.testing.assert_close(slow, torch.full_like(slow, 1e-3).copysign(slow))  # Adam's first step, unclipped
    assert torch.equal(learned("other", {"learning_rate": 1e-3}, learning_rate=5e-4, clip_norm=1e-6), slow)


def test_importance_sampling_leaves_the_first_steps_as_they_are(make, tmp_path):
    execute(make({}), tmp_path / "plain")
    execute(make({"timesteps": {"name": "loss_second_moment"}}), tmp_path / "importance")
    assert losses(tmp_path / "importance") == losses(tmp_path / "plain")  # 24 losses do not fill a hundred bins


def test_importance_sampling_sees_the_losses_of_class_pictures_too(make, photos, tmp_path):
    config = make(OBJECTIVES["importance"])

    def with_class_pictures(name, apart):
        prior = {"prompt": "a photo of a dog", "source": str(photos), "weight": 0.5, "apart": apart}
        data = config.data.model_dump() | {"prior": prior}
        with pytest.raises(Killed):
            execute(validate(RunConfig, config.model_dump() | {"data": data}), tmp_path / name, KillAt(5))
        return load_checkpoint(checkpoints(tmp_path / name / "checkpoints")[-1])[0]

    together, apart = with_class_pictures("together", False), with_class_pictures("apart", True)
    assert int(together["adaptive.history.seen"].sum()) == 4 * (4 + 4)  # four steps, four pictures of each kind
    assert losses(tmp_path / "together") == pytest.approx(losses(tmp_path / "apart"), rel=1e-3)
    torch.testing.assert_close(
        together["adaptive.history.losses"], apart["adaptive.history.losses"], rtol=1e-3, atol=1e-5
    )


def test_pictures_of_the_multi_task_problem_change_nothing_else(make, tmp_path):
    """The gradients by bin draw from streams of their own: with equal weights a run is plain but for rounding."""
    equal = {"name": "ugd", "bins": 2, "samples": 1, "every": 2, "regularisation": 1e12}
    execute(make({"weighting": equal}), tmp_path / "equal")
    execute(make({}), tmp_path / "plain")
    assert losses(tmp_path / "equal") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
