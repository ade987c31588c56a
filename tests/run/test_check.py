"""What is refused before any weights are loaded."""

import pytest

from inlay.errors import ConfigError, TargetError
from inlay.run.check import check, check_length
from inlay.run.config import RunConfig
from inlay.run.load import validate


def job(base, section="train", **settings):
    data = {
        "base": str(base),
        "data": {"source": "nowhere"},
        "method": {"name": "lora", "rank": 1},
        "train": {"steps": 4, "batch_size": 4},
    }
    data[section] = {**data.get(section, {}), **settings}
    return validate(RunConfig, data)


@pytest.fixture(scope="module")
def deep_base(tiny_base, tmp_path_factory):
    """The configuration of a denoiser that halves once more than the tiny one: sides are multiples of 16."""
    import json
    import shutil

    folder = tmp_path_factory.mktemp("deep") / "base"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    config |= {
        "block_out_channels": [32, 32, 32],
        "down_block_types": ["DownBlock2D"] * 2 + ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"] + ["UpBlock2D"] * 2,
    }
    path.write_text(json.dumps(config))
    return folder


def test_sizes_name_the_multiple(deep_base):
    assert check(job(deep_base, "data", resolution=48)).granularity == 16
    with pytest.raises(ConfigError, match=r"data\.resolution=40: must be a multiple of 16.*nearest are 32 or 48"):
        check(job(deep_base, "data", resolution=40))
    with pytest.raises(ConfigError, match=r"data\.bucket_step=8: must be a multiple of 16.*nearest are 16$"):
        check(job(deep_base, "data", buckets=True, bucket_step=8))


def test_buckets_have_sides_that_the_base_can_halve(deep_base, photos):
    from inlay.data.dataset import load_dataset

    config = job(deep_base, "data", source=str(photos), prompt="x", buckets=True, resolution=64)
    architecture = check(config)
    dataset = load_dataset(config.data, architecture.resolution, 0, architecture.granularity)
    [(size, members)] = dataset.buckets
    assert size in {(48, 80), (64, 80), (64, 64)}
    assert size[0] % 16 == size[1] % 16 == 0
    assert len(members) == 6


@pytest.mark.parametrize(
    ("name", "said"), [("tensorbord", "is not a tracker; allowed: aim, "), ("wandb", "is not installed")]
)
def test_a_tracker_that_is_not_there_is_refused(tiny_base, name, said, monkeypatch):
    from accelerate import tracking

    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ConfigError, match=f"train.trackers: {name!r} {said}"):
        check(job(tiny_base, trackers=[name]))
    check(job(tiny_base, trackers=["tensorboard"]))


def test_the_objective_follows_the_base(tiny_base):
    check(job(tiny_base, "objective", prediction="epsilon"))
    with pytest.raises(ConfigError, match=r"objective\.prediction=v_prediction, but the base predicts epsilon"):
        check(job(tiny_base, "objective", prediction="v_prediction"))


def test_lengths_that_clash_are_refused(tiny_base):
    check_length(job(tiny_base, schedule={"warmup_steps": 4}), 6, 2)
    with pytest.raises(ConfigError, match="warmup_steps is 5, longer than the run of 4 steps"):
        check_length(job(tiny_base, schedule={"warmup_steps": 5}), 6, 1)
    with pytest.raises(ConfigError, match="3 processes"):
        check_length(job(tiny_base), 6, 3)


def test_a_stack_that_cannot_be_merged_is_refused_before_it_is_trained(tiny_base):
    lora, dora, full = {"name": "lora"}, {"name": "lora", "dora": True}, {"name": "full"}
    order = {"a": [lora, dora, full], "b": [dora, lora, full], "c": [lora, dora]}
    jobs = {}
    for name, (first, *others) in order.items():
        data = {"base": str(tiny_base), "data": {"source": "nowhere"}, "method": first, "train": {"steps": 4}}
        jobs[name] = validate(RunConfig, {**data, "stack": others})
    with pytest.raises(TargetError, match=r"carries (a|another) method (above|below) it"):
        check(jobs["a"])
    check(jobs["b"])
    check(jobs["c"])
