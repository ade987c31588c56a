"""Runs with class pictures: what is drawn, what is kept, what comes out."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.base.weights import hashes
from inlay.data.prior import class_images_directory
from inlay.errors import ConfigError, DataError
from inlay.run import class_images
from inlay.run.class_images import drawn_pictures
from inlay.run.config import PretrainConfig, RunConfig
from inlay.run.directory import read_trace
from inlay.run.draw import draw, load_target
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.run.plan import make_plan

LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make(tiny_base, photos):
    """Return a function that makes a configuration; keyword arguments are settings of `data.prior`."""

    def build(train=(), method=("lora", {"rank": 2}), data=(), **prior):
        name, settings = method
        return validate(
            RunConfig,
            {
                "base": str(tiny_base),
                "data": {
                    "source": str(photos),
                    "prompt": "a photo of sks dog",
                    "horizontal_flip": 0.5,
                    "prior": {"prompt": "a photo of the dog", "images": 6, "steps": 2, **prior},
                    **dict(data),
                },
                "method": {"name": name, **settings},
                "train": {"steps": 3, "batch_size": 2, "trackers": [], "learning_rate": 1e-3, **dict(train)},
                "preview": {"pictures": 1, "steps": 1},
            },
        )

    return build


class Told:
    """A reporter that remembers, and can end the run like a killed process."""

    def __init__(self, kill_at=None):
        self.kill_at, self.drawn, self.notes = kill_at, [], []

    def phase(self, text): ...
    def step(self, state): ...

    def note(self, text):
        self.notes.append(text)

    def progress(self, what, done, total):
        if what == "drawing class pictures":
            self.drawn.append((done, total))
            if done == self.kill_at:
                raise KeyboardInterrupt


def kept():
    return sorted(class_images_directory().glob("*/*.png"))


def weights(directory):
    return load_file(directory / LORA)


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_class_pictures_are_drawn_once_and_shown(make, tmp_path):
    told = Told()
    result = execute(make(), tmp_path / "first", told)
    assert told.drawn == [(2, 6), (4, 6), (5, 6), (6, 6)]
    assert len(kept()) == 8  # whole groups of four
    assert result.record["data"]["prior"] | {"hash": None} == {
        "hash": None,
        "pictures": 6,
        "given": 0,
        "drawn": 6,
        "skipped": [],
    }
    assert result.record["costs"]["images_seen"] == result.record["costs"]["class_images_seen"] == 6
    with Image.open(tmp_path / "first" / "class_images.png") as sheet:
        assert sheet.width > 1000
    for entry in read_trace(tmp_path / "first"):
        assert entry["loss"] == pytest.approx(entry["instance_loss"] + entry["prior_loss"])
        assert entry["instance_loss"] != entry["prior_loss"]
    before = {path: path.stat().st_mtime_ns for path in kept()}
    again = Told()
    execute(make(), tmp_path / "second", again)
    assert again.drawn == []
    assert {path: path.stat().st_mtime_ns for path in kept()} == before
    assert_same(weights(tmp_path / "first"), weights(tmp_path / "second"))


def test_they_are_what_the_untouched_base_draws(make, tiny_base, tmp_path):
    execute(make(guidance=3, negative_prompt="red", seed=5), tmp_path / "run")
    base = load_target(str(tiny_base))
    for path in kept():
        seed = class_images.derive(5, "class picture", int(path.stem))
        [expected] = draw(base, "a photo of the dog", 1, seed, steps=2, guidance=3, negative_prompt="red")
        with Image.open(path) as picture:
            difference = np.abs(np.asarray(picture).astype(int) - expected.pixels)
        assert difference.max() <= 1  # drawn in company
    assert len({path.read_bytes() for path in kept()}) == 8


@pytest.mark.parametrize("method", [("full", {}), ("bitfit", {}), ("lora", {"rank": 2, "text_encoder": True})])
def test_every_method_finds_the_same_pictures(make, tmp_path, method):
    execute(make(), tmp_path / "lora")
    told = Told()
    execute(make(method=method), tmp_path / "other", told)
    assert told.drawn == []
    assert len(kept()) == 8


@pytest.mark.parametrize(
    "prior", [{"seed": 1}, {"guidance": 2}, {"steps": 3}, {"negative_prompt": "red"}, {"prompt": "a red dog"}]
)
def test_other_settings_draw_other_pictures(make, tiny_base, prior):
    base = load_base(BaseSettings(model=str(tiny_base)))
    assert base.file_hash is not None
    one = drawn_pictures(make(), base, 32, base.file_hash)
    assert drawn_pictures(make(**prior), base, 32, base.file_hash).directory != one.directory
    assert drawn_pictures(make(images=60, weight=2, apart=True), base, 32, base.file_hash) == one
    assert drawn_pictures(make(), base, 64, base.file_hash) != one
    assert drawn_pictures(make(), base, 32, "another base") != one


def test_a_killed_drawing_goes_on_and_ends_in_the_same_bits(make, tmp_path, monkeypatch):
    execute(make(), tmp_path / "whole")
    whole = {path.name: path.read_bytes() for path in kept()}
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "other cache"))
    with pytest.raises(KeyboardInterrupt):
        execute(make(), tmp_path / "killed", Told(kill_at=5))
    assert len(kept()) == 4
    told = Told()
    execute(make(), tmp_path / "killed", told)
    assert told.drawn == [(5, 6), (6, 6)]
    assert {path.name: path.read_bytes() for path in kept()} == whole
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_more_pictures_leave_the_earlier_ones_and_broken_ones_are_drawn_anew(make, tmp_path):
    execute(make(images=3), tmp_path / "few")
    before = {path: path.read_bytes() for path in kept()}
    assert len(before) == 4
    broken = kept()[1]
    broken.write_bytes(b"")
    execute(make(images=9), tmp_path / "many")
    assert len(kept()) == 12
    assert {path: path.read_bytes() for path in before} == before


def test_given_pictures_are_topped_up_elsewhere(make, photos, tmp_path):
    before = sorted(photos.iterdir())
    result = execute(make(source=str(photos), images=8), tmp_path / "run")
    assert (result.record["data"]["prior"]["given"], result.record["data"]["prior"]["drawn"]) == (6, 2)
    assert sorted(photos.iterdir()) == before
    told = Told()
    result = execute(make(source=str(photos), images=None), tmp_path / "own", told)
    assert (result.record["data"]["prior"]["given"], told.drawn) == (6, [])


def test_a_wrong_class_folder_is_refused_before_anything_is_written(make, tmp_path):
    with pytest.raises(DataError, match=r"data\.prior\.source: there is no folder"):
        execute(make(source=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_apart_is_the_same_training(make, tmp_path):
    execute(make(weight=0.5), tmp_path / "together")
    execute(make(weight=0.5, apart=True), tmp_path / "apart")
    one, other = read_trace(tmp_path / "together"), read_trace(tmp_path / "apart")
    for name in ("loss", "instance_loss", "prior_loss", "gradient_norm"):
        assert [entry[name] for entry in one] == pytest.approx([entry[name] for entry in other], rel=1e-3)
    assert one[0]["loss"] == pytest.approx(one[0]["instance_loss"] + 0.5 * one[0]["prior_loss"])


def test_buckets_of_two_shapes(make, tmp_path):
    data = {"buckets": True, "bucket_step": 8, "resolution": 32}
    result = execute(make(data=data), tmp_path / "run")
    assert all(np.isfinite(entry["prior_loss"]) for entry in read_trace(tmp_path / "run"))
    assert result.finished


def test_validation_measures_the_subject_alone(make, tmp_path):
    with_class = execute(make(train={"steps": 1, "learning_rate": 1e-12}, data={"validation": 1}), tmp_path / "with")
    data = {"validation": 1, "prior": None}
    without = execute(make(train={"steps": 1, "learning_rate": 1e-12}, data=data), tmp_path / "without")
    metrics = [result.record["metrics"]["validation_loss"] for result in (with_class, without)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
    one, other = read_trace(tmp_path / "with")[0], read_trace(tmp_path / "without")[0]
    assert one["instance_loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_pictures_of_another_prior_do_not_go_on_with_the_run(make, tmp_path):
    class Kill(Told):
        def step(self, state):
            if state.step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(make(train={"checkpoint_every": 1}), tmp_path / "run", Kill())
    with pytest.raises(ConfigError, match=r"data\.prior\.seed"):
        execute(make(train={"checkpoint_every": 1}, seed=9), tmp_path / "run")


def test_a_denoiser_from_scratch_has_no_prior(make):
    data = json.loads(make().model_dump_json(exclude={"method", "stack", "start_from"}))
    sizes = {"sample_size": 8, "block_out_channels": [8], "down_block_types": ["DownBlock2D"], "norm_num_groups": 4}
    with pytest.raises(ConfigError, match=r"data\.prior keeps what a base knows of a class"):
        validate(PretrainConfig, {**data, "denoiser": sizes})


def test_overlong_captions_are_announced(make, tmp_path):
    told = Told()
    execute(make(train={"steps": 1}, images=1, prompt=" ".join(["dog"] * 90)), tmp_path / "run", told)
    assert any(note.startswith("1 of 2 captions are longer than the 77 tokens") for note in told.notes)


def test_the_base_hash_of_a_plan_is_that_of_a_run(tiny_base):
    from inlay.base.locate import locate

    settings = BaseSettings(model=str(tiny_base))
    base = load_base(settings)
    assert hashes(locate(settings), base.architecture.meta()) == (base.file_hash, base.part_hashes)


def test_a_plan_knows_what_is_there_and_what_it_costs(make, photos, tmp_path):
    plain = make_plan(make(data={"prior": None}))
    first = make_plan(make())
    assert plain.data.prior is None
    assert (plain.work.class_images_flops, plain.disk.class_images_bytes) == (0, 0)
    prior = first.data.prior
    assert prior is not None
    assert (prior.pictures, prior.given, prior.kept, prior.to_draw) == (6, 0, 0, 6)
    assert first.effective.micro_batch_images == 2 * plain.effective.micro_batch_images
    assert first.work.forward_step_flops == 2 * plain.work.forward_step_flops
    assert first.work.backward_step_flops == 2 * plain.work.backward_step_flops
    assert first.memory.activations_bytes > 1.5 * plain.memory.activations_bytes
    apart = make_plan(make(apart=True))
    assert apart.memory.activations_bytes == plain.memory.activations_bytes
    assert apart.work.forward_step_flops == first.work.forward_step_flops
    execute(make(), tmp_path / "run")
    then = make_plan(make(images=20)).data.prior
    assert then is not None
    assert (then.kept, then.to_draw) == (8, 12)
    assert make_plan(make()).work.class_images_flops == 0
    given = make_plan(make(source=str(photos), images=8)).data.prior
    assert given is not None
    assert (given.given, given.kept, given.to_draw) == (6, 2, 0)
    absent = make_plan(make(source="/nowhere"))
    assert absent.data.prior is not None
    assert absent.data.prior.pictures is None
    assert absent.disk.latents_bytes is None
    assert any("class pictures were not examined" in warning for warning in absent.warnings)


def test_processes_share_the_work(make, tiny_base, photos, monkeypatch, tmp_path):
    """Two processes, one after the other in this one: each draws its groups, and only those."""
    config = make(images=12)
    base = load_base(BaseSettings(model=str(tiny_base)))
    assert base.file_hash is not None
    pictures = drawn_pictures(config, base, 32, base.file_hash)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    done = []
    for process in (0, 1):
        monkeypatch.setattr(Accelerator, "process_index", property(lambda self, process=process: process))
        class_images._draw(base, pictures, 12, accelerator, 2, lambda *_: None)
        done.append(pictures.missing(range(12)))
    assert done == [[4, 5, 6, 7], []]
