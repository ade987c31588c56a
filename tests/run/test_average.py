import json
import shutil

import pytest
import torch

import inlay
from inlay.cli.main import main
from inlay.errors import ArtifactError, ConfigError
from inlay.files import read_tensors
from inlay.methods.lora import Lora
from inlay.run.config import PretrainConfig, RunConfig
from inlay.run.directory import load_run
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.train.loop import Loop
from inlay.train.snapshots import snapshots
from tests.killed import Killed

STEPS = 24


def config(tiny_base, photos, lengths, **sections):
    data = {
        "base": str(tiny_base),
        "data": {"source": str(photos), "prompt": "a photo of sks dog", "resolution": 16},
        "method": {"name": "lora", "rank": 2},
        "train": {
            "steps": STEPS,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "ema": {"name": "power", "sigma_rel": lengths, "snapshots": 8},
            "checkpoint_every": 5,
        },
        "preview": {"steps": 1, "pictures": 1},
        **sections,
    }
    data = {key: value for key, value in data.items() if value is not None}
    return validate(PretrainConfig if "denoiser" in data else RunConfig, data)


@pytest.fixture(scope="module")
def finished(tiny_base, photos, tmp_path_factory):
    directory = tmp_path_factory.mktemp("power") / "run"
    execute(config(tiny_base, photos, [0.05, 0.1]), directory)
    return directory


@pytest.fixture(scope="module")
def tracked(tiny_base, photos, tmp_path_factory):
    """The same run, whose result is an average of another length that was followed from the beginning."""
    directory = tmp_path_factory.mktemp("tracked") / "run"
    execute(config(tiny_base, photos, [0.15]), directory)
    return directory


def same(one, other):
    (first, _), (second, _) = read_tensors(one), read_tensors(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def result(directory):
    return read_tensors(directory / Lora().file_name)


def test_a_run_stores_its_averages_and_its_result_is_the_first(finished):
    assert list(snapshots(finished)) == [3, 6, 9, 12, 15, 18, 21, 24]
    record = json.loads((finished / "record.json").read_text())
    assert record["status"] == "done"


def test_a_stored_length_is_what_was_stored_bit_for_bit(finished):
    made = inlay.average(finished, 0.05)
    assert made.distance == 0
    own, metadata = result(finished)
    again, marked = result(made.directory)
    assert own.keys() == again.keys()
    assert all(torch.equal(own[name], again[name]) for name in own)
    assert marked == {**metadata, "inlay.sigma_rel": "0.05"}


def test_another_length_is_near_the_average_that_was_followed(finished, tracked, tmp_path):
    made = inlay.average(finished, 0.15, tmp_path / "made")
    assert 0 < made.distance < 0.05
    wanted, found, other = result(tracked)[0], result(made.directory)[0], result(finished)[0]
    for name in wanted:
        scale = (other[name] - wanted[name]).norm()
        assert (found[name] - wanted[name]).norm() < 0.05 * scale, name


def test_the_result_draws(finished, tmp_path, capsys):
    assert main(["average", str(finished), "--sigma-rel", "0.2", "--sigma-rel", "0.01"]) == 0
    said = capsys.readouterr().out
    assert "its profile to within" in said
    assert "note: sigma_rel 0.01" in said
    place = finished / "averages" / "sigma-rel-0.2"
    pictures = inlay.sample(place, "a photo of sks dog", pictures=1, steps=1)
    assert pictures[0].pixels.shape == (32, 32, 3)
    record = json.loads((place / "record.json").read_text())
    assert record["average"]["sigma_rel"] == 0.2
    assert record["metrics"]["validation_loss"] is None
    assert record["missing"]["validation_loss"] == "not measured of this average"


def test_a_run_that_was_killed_goes_on_to_the_same_bits(finished, tiny_base, photos, tmp_path, monkeypatch):
    step = Loop.step

    def until(self, number, *arguments):
        if number == 13:
            raise Killed
        return step(self, number, *arguments)

    monkeypatch.setattr(Loop, "step", until)
    with pytest.raises(Killed):
        execute(config(tiny_base, photos, [0.05, 0.1]), tmp_path / "run")
    monkeypatch.setattr(Loop, "step", step)
    assert list(snapshots(tmp_path / "run")) == [3, 6, 9, 12]
    shutil.copy(tmp_path / "run" / "averages" / "step-00000012.safetensors", tmp_path / "before")
    record = execute(config(tiny_base, photos, [0.05, 0.1]), tmp_path / "run").record
    assert record["resumed_from_step"] == 10
    assert same(tmp_path / "before", snapshots(tmp_path / "run")[12])
    assert snapshots(tmp_path / "run").keys() == snapshots(finished).keys()
    for taken, path in snapshots(finished).items():
        assert same(path, snapshots(tmp_path / "run")[taken])


def test_a_whole_model_from_scratch_is_averaged_as_well(tiny_base, photos, tmp_path):
    denoiser = {
        "sample_size": 4,
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    execute(config(tiny_base, photos, [0.1], denoiser=denoiser, method=None), tmp_path / "run")
    same = inlay.average(tmp_path / "run", 0.1, tmp_path / "same")
    one, _ = load_run(tmp_path / "run")
    other, _ = load_run(same.directory)
    for name, value in one.unet.state_dict().items():
        assert torch.equal(value, other.unet.state_dict()[name]), name
    longer = inlay.average(tmp_path / "run", 0.2, tmp_path / "longer")
    assert len(inlay.sample(longer.directory, "a photo", pictures=1, steps=1)) == 1


@pytest.mark.parametrize(("length", "problem"), [(0.0, "must be above 0"), (0.5, "at most 0.28")])
def test_impossible_lengths_are_refused(finished, length, problem):
    with pytest.raises(ConfigError, match=problem):
        inlay.average(finished, length)


def test_a_taken_place_and_a_run_without_averages_are_refused(finished, tiny_base, photos, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="is there already"):
        inlay.average(finished, 0.1, tmp_path / "taken")
    plain = config(tiny_base, photos, [0.1])
    plain = plain.model_copy(update={"train": plain.train.model_copy(update={"ema": None, "steps": 1})})
    execute(plain, tmp_path / "plain")
    with pytest.raises(ConfigError, match="stored no averages"):
        inlay.average(tmp_path / "plain", 0.1)


def test_lost_snapshots_are_said(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("averages"))
    with pytest.raises(ArtifactError, match="are gone"):
        inlay.average(tmp_path / "run", 0.1)
