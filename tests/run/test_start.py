"""Runs that go on from what an earlier one learned."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inlay.artifacts.formats import FORMATS
from inlay.artifacts.layers import Updates
from inlay.base.settings import BaseSettings
from inlay.cli.main import main
from inlay.errors import ArtifactError, ConfigError
from inlay.methods import METHODS
from inlay.run.blueprints import base_blueprint
from inlay.run.check import check
from inlay.run.config import RunConfig
from inlay.run.directory import read_trace
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.run.plan import make_plan
from inlay.run.reporter import Silent
from inlay.run.start import start_files
from tests.artifacts.specimens import hadamard, low_rank

LORA = "pytorch_lora_weights.safetensors"


class Listener(Silent):
    """Keeps what a run tells."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def make(tiny_base, photos):
    """Return a function that makes a short run."""

    def build(method="lora", start_from=(), steps=3, rate=1e-3, stack=(), prompt="a photo of sks dog", **train):
        data = {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": prompt},
            "method": method,
            "stack": list(stack),
            "start_from": start_from,
            "train": {"steps": steps, "batch_size": 2, "trackers": [], "learning_rate": rate, **train},
            "preview": {"pictures": 1, "steps": 2},
        }
        return validate(RunConfig, data)

    return build


@pytest.fixture
def first(make, tmp_path):
    """Return the directory of a finished run with a LoRA."""
    execute(make(), tmp_path / "first")
    return tmp_path / "first"


def test_training_goes_on_where_the_other_run_ended(make, first, tmp_path):
    execute(make(start_from=str(first), steps=1, rate=1e-9), tmp_path / "on")
    learned, went_on = load_file(first / LORA), load_file(tmp_path / "on" / LORA)
    assert any(float(tensor.abs().max()) > 0 for name, tensor in learned.items() if "lora_B" in name)
    for name, tensor in learned.items():
        torch.testing.assert_close(went_on[name], tensor, rtol=0, atol=1e-7)
    # The same first step, with the same pictures and noise, has another loss than at the base.
    losses = [read_trace(directory)[0]["loss"] for directory in (first, tmp_path / "on")]
    assert losses[0] != losses[1]
    record = json.loads((tmp_path / "on" / "record.json").read_text())
    ((name, digest),) = record["start_from"].items()
    assert name == str(first / LORA)
    assert len(digest) == 64


def test_other_weights_of_the_base_are_told(make, first, tmp_path):
    with safe_open(first / LORA, framework="pt") as file:
        metadata = file.metadata()
    other = tmp_path / "other.safetensors"
    save_file(load_file(first / LORA), other, {**metadata, "inlay.base_hash": "0" * 64})
    for path, told in ((first / LORA, False), (other, True)):
        listener = Listener()
        execute(make(start_from=str(path), steps=1), tmp_path / f"on-{path.stem}", listener)
        assert any("was learned on other weights" in note for note in listener.notes) == told


def test_it_is_told_on_the_command_line(make, first, tmp_path, tiny_base, photos, capsys):
    arguments = [f"base={tiny_base}", f"data.source={photos}", "data.prompt=sks", "method=lora", "train.steps=1"]
    file = tmp_path / "run.yaml"
    file.write_text("train: {learning_rate: 1e-3, trackers: []}\npreview: {pictures: 1, steps: 1}\n")
    on = [f"start_from={first / LORA}", f"output={tmp_path / 'on'}"]
    assert main(["tune", str(file), *arguments, *on]) == 0
    assert str(first / LORA) in (tmp_path / "on" / "run.yaml").read_text()
    capsys.readouterr()
    assert main(["tune", str(file), *arguments, "method.rank=2", on[0], f"output={tmp_path / 'other'}"]) == 2
    assert "more than method.rank=2" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()


def test_a_run_is_resumed_only_from_the_same_start(make, first, tmp_path):
    class Stop(Exception): ...

    class StopAt(Silent):
        def step(self, state):
            if state.step == 3:
                raise Stop

    shutil.copytree(first, tmp_path / "moved")
    config = make(start_from=str(tmp_path / "moved"), steps=4, checkpoint_every=2)
    with pytest.raises(Stop):
        execute(config, tmp_path / "killed", StopAt())
    whole = execute(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "killed", tmp_path / "other")
    execute(config, tmp_path / "killed")
    resumed, straight = (load_file(directory / LORA) for directory in (tmp_path / "killed", whole.directory))
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    with safe_open(first / LORA, framework="pt") as file:
        metadata = file.metadata()
    changed = {name: tensor + 1 for name, tensor in load_file(first / LORA).items()}
    save_file(changed, tmp_path / "moved" / LORA, metadata)
    with pytest.raises(ArtifactError, match="other data, base or start"):
        execute(config, tmp_path / "other")


def test_a_stack_starts_from_all_that_its_run_saved(make, tmp_path):
    methods = {"method": {"name": "adapter", "width": 4}, "stack": [{"name": "bitfit"}]}
    execute(make(**methods), tmp_path / "first")
    config = make(**methods, start_from=str(tmp_path / "first"), steps=1, rate=1e-9)
    execute(config, tmp_path / "on")
    files = start_files(config)
    assert len(files) == 2
    for path in files:
        went_on = load_file(tmp_path / "on" / path.relative_to(tmp_path / "first"))
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(went_on[name], tensor, rtol=0, atol=1e-7)


@pytest.mark.parametrize("format_name", ["kohya", "peft"])
def test_a_lora_of_another_program_is_trained_further(make, tmp_path, tiny_base, format_name):
    model = base_blueprint(BaseSettings(model=str(tiny_base)))
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    path = tmp_path / f"style{FORMATS[format_name].suffix}"
    FORMATS[format_name].write(path, Updates({name: low_rank(model.shapes[name], rank=3, alpha=1.0)}), [model])
    listener = Listener()
    execute(make({"name": "lora", "rank": 5}, start_from=str(path), steps=1, rate=1e-9), tmp_path / "on", listener)
    assert any("lacks 31 of the layers that are trained; they begin anew" in note for note in listener.notes)
    assert not any("other weights" in note for note in listener.notes)
    begun = FORMATS["inlay"].read(tmp_path / "on" / LORA, [model]).layers
    expected = FORMATS[format_name].read(path, [model]).layers[name].delta(model.shapes[name])
    torch.testing.assert_close(begun[name].delta(model.shapes[name]), expected, rtol=1e-4, atol=1e-6)
    assert all(one.delta(model.shapes[other]).abs().max() < 1e-6 for other, one in begun.items() if other != name)
    (digest,) = json.loads((tmp_path / "on" / "record.json").read_text())["start_from"].values()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    assert files
    parts = [hashlib.sha256(file.read_bytes()) for file in files]
    assert digest == (parts[0] if len(parts) == 1 else hashlib.sha256(b"".join(p.digest() for p in parts))).hexdigest()


def test_a_loha_of_another_program_is_trained_further(make, tmp_path, tiny_base):
    model = base_blueprint(BaseSettings(model=str(tiny_base)))
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    path = tmp_path / "style.safetensors"
    theirs = hadamard(model.shapes[name], rank=2, alpha=1.0)
    FORMATS["lycoris"].write(path, Updates({name: theirs}), [model])
    listener = Listener()
    execute(make({"name": "loha", "rank": 3}, start_from=str(path), steps=1, rate=1e-9), tmp_path / "on", listener)
    assert any("lacks 31 of the layers that are trained; they begin anew" in note for note in listener.notes)
    begun = FORMATS["inlay"].read(tmp_path / "on" / "loha.safetensors", [model]).layers
    torch.testing.assert_close(
        begun[name].delta(model.shapes[name]), theirs.delta(model.shapes[name]), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.result == "adapter"])
def test_every_method_that_saves_a_file_fits_its_own(make, tmp_path, name):
    settings = {"method": {"name": name}, "prompt": "a photo of <new> dog"}
    execute(make(**settings, steps=1), tmp_path / "first")
    check(make(**settings, start_from=str(tmp_path / "first")))


def test_what_does_not_fit_is_refused_before_any_work(make, first, tmp_path, tiny_base):
    def refused(error, **settings):
        with pytest.raises(error) as caught:
            check(make(**settings))
        with pytest.raises(error) as planned:
            make_plan(make(**settings))
        assert str(caught.value) == str(planned.value)
        return str(caught.value)

    assert "start_from: nowhere: no such file or run directory" in refused(ConfigError, start_from="nowhere")
    found = refused(ArtifactError, start_from=str(first), method={"name": "lora", "rank": 4})
    assert f"start_from: {first / LORA}: has rank 8 at unet." in found
    assert "holds lora, but the method is loha" in refused(ArtifactError, start_from=str(first), method="loha")
    found = refused(ConfigError, start_from=[str(first), str(first)])
    assert "2 saved" in found
    assert "but the run trains lora; give one for each" in found
    foreign = tmp_path / "foreign.safetensors"
    save_file(load_file(first / LORA), foreign)
    assert "not a file that says" in refused(ArtifactError, start_from=str(foreign), method="oft")
    assert "the method loha cannot hold this: unet." in refused(ArtifactError, start_from=str(foreign), method="loha")
    with safe_open(first / LORA, framework="pt") as file:
        metadata = file.metadata()
    cut = load_file(first / LORA)
    cut.pop(next(iter(cut)))
    save_file(cut, foreign, metadata)
    assert "does not fit here" in refused(ArtifactError, start_from=str(foreign))
    hira = {"name": "hira", "rank": 2}
    execute(make(hira, steps=1), tmp_path / "hira")
    found = refused(ArtifactError, start_from=str(tmp_path / "hira"), method={**hira, "rank": 3})
    assert "was trained with method.rank=2, not 3. Make them the same" in found
    foreign.write_bytes(foreign.read_bytes()[:3000])
    assert f"start_from: {foreign}: not a safetensors file" in refused(ArtifactError, start_from=str(foreign))
