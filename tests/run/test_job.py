import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from inlay.base.sampling import initial_noise, sample, sampler_config
from inlay.errors import ArtifactError, ConfigError, TargetError, TrainingError
from inlay.run.config import PretrainConfig, RunConfig
from inlay.run.directory import load_run, read_trace
from inlay.run.job import Job, execute
from inlay.run.load import validate
from inlay.train.checkpoint import checkpoints, load_checkpoint
from tests.killed import KillAt, Killed
from tests.run.plain_diffusers import check_same_picture

LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture
def make(tiny_base, photos):
    """Return a function that makes a configuration from `section__key=value` overrides."""

    def build(kind=RunConfig, **overrides):
        data = {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a photo of sks dog", "horizontal_flip": 0.5},
            "method": {"name": "lora", "rank": 2, "dropout": 0.1},
            "train": {"steps": 6, "batch_size": 4, "checkpoint_every": 2, "trackers": [], "learning_rate": 1e-3},
            "preview": {"pictures": 1, "steps": 2},
        }
        for key, value in overrides.items():
            section, _, name = key.partition("__")
            if name:
                data[section] = {**data.get(section, {}), name: value}
            elif value is None:
                del data[section]
            else:
                data[section] = value
        return validate(kind, data)

    return build


def test_a_run_leaves_everything_a_user_needs(make, tmp_path):
    config = make(train__ema={"decay": 0.5}, data__validation=1, preview__every=3)
    result = execute(config, tmp_path / "run")
    assert result.finished
    present = {path.name for path in (tmp_path / "run").iterdir()}
    assert present == {"run.yaml", "trace.jsonl", "record.json", "samples.png", "loss.png", "previews", LORA}
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["costs"]["steps"] == 6
    assert record["costs"]["images_seen"] == 24
    assert record["costs"]["result_bytes"] == (tmp_path / "run" / LORA).stat().st_size
    assert record["costs"]["peak_bytes"] > 10**6
    assert record["data"]["pictures"] == 5
    assert record["data"]["held_out"] == 1
    assert record["metrics"]["validation_loss"] == read_trace(tmp_path / "run")[-1]["validation_loss"]
    assert record["missing"] == {}
    assert sorted(path.name for path in (tmp_path / "run" / "previews").iterdir()) == [
        "step-00000003.png",
        "step-00000006.png",
    ]
    with safe_open(tmp_path / "run" / LORA, "pt") as file:
        metadata = file.metadata()
    assert metadata["inlay.trigger"] == "a photo of sks dog"
    assert metadata["inlay.base_hash"] == record["base"]["hash"]
    assert metadata["inlay.config_hash"] == record["config_hash"]


def test_plain_diffusers_draws_the_same_picture(make, tiny_base, tmp_path):
    run = tmp_path / "run"
    execute(make(method={"name": "lora", "rank": 2, "alpha": 8.0, "text_encoder": True}), run)
    check_same_picture(tiny_base, run, "a photo of sks dog", lambda pipeline: pipeline.load_lora_weights(run))


def test_a_killed_run_reaches_the_same_bits(make, tmp_path):
    config = make(train__ema={"decay": 0.9}, data__caption_dropout=0.2)
    execute(config, tmp_path / "whole")
    with pytest.raises(Killed):
        execute(config, tmp_path / "killed", KillAt(5))
    assert [path.name for path in checkpoints(tmp_path / "killed" / "checkpoints")] == [
        "step-00000002",
        "step-00000004",
    ]
    resumed = execute(config, tmp_path / "killed")
    assert resumed.record["resumed_from_step"] == 4
    whole, killed = load_file(tmp_path / "whole" / LORA), load_file(tmp_path / "killed" / LORA)
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    losses = [[entry["loss"] for entry in read_trace(tmp_path / name)] for name in ("whole", "killed")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_caches_change_nothing(make, tmp_path, monkeypatch):
    execute(make(), tmp_path / "cached")
    monkeypatch.setattr("inlay.train.diffusion.Diffusion.build_caches", lambda self, progress: None)
    execute(make(), tmp_path / "uncached")
    for one, other in zip(read_trace(tmp_path / "cached"), read_trace(tmp_path / "uncached"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_micro_batches_change_only_rounding(make, tmp_path):
    plain = {"name": "lora", "rank": 2}
    execute(make(method=plain), tmp_path / "one")
    execute(make(method=plain, train__accumulate=2), tmp_path / "two")
    one, two = load_file(tmp_path / "one" / LORA), load_file(tmp_path / "two" / LORA)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=2e-3, atol=2e-5)


def test_gradient_checkpointing_changes_nothing(make, tmp_path):
    plain = {"name": "lora", "rank": 2}
    execute(make(method=plain), tmp_path / "kept")
    execute(make(method=plain, train__gradient_checkpointing=True), tmp_path / "recomputed")
    one, two = load_file(tmp_path / "kept" / LORA), load_file(tmp_path / "recomputed" / LORA)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=2e-3, atol=2e-5)


def test_a_non_finite_loss_stops_before_the_step_and_names_the_pictures(make, tmp_path, monkeypatch):
    from inlay.train import diffusion

    honest = diffusion.loss_per_sample
    calls = []

    def poisoned(output, target, weights, places):
        calls.append(1)
        losses = honest(output, target, weights, places)
        return losses * torch.tensor([1, 1, float("nan"), 1]) if len(calls) == 3 else losses

    monkeypatch.setattr(diffusion, "loss_per_sample", poisoned)
    config = make()
    with pytest.raises(TrainingError, match=r"step 3 is not finite, for \d\.png; the weights are those before"):
        execute(config, tmp_path / "run")
    assert len(read_trace(tmp_path / "run")) == 2


def test_full_tuning_saves_a_pipeline_that_plain_diffusers_loads(make, tiny_base, tmp_path):
    from diffusers import StableDiffusionPipeline

    result = execute(make(method="full"), tmp_path / "run")
    assert result.record["files"] == ["pipeline"]
    tuned = StableDiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline", safety_checker=None)
    base = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    moved = [
        name for name, value in tuned.unet.state_dict().items() if not torch.equal(value, base.unet.state_dict()[name])
    ]
    assert len(moved) > 0.9 * len(base.unet.state_dict())
    kept = base.text_encoder.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in tuned.text_encoder.state_dict().items())
    ours, attachments = load_run(tmp_path / "run")
    assert attachments == []
    assert all(torch.equal(value, tuned.unet.state_dict()[name]) for name, value in ours.unet.state_dict().items())


def test_a_stack_trains_and_comes_back(make, tmp_path):
    config = make(stack=[{"name": "lora", "targets": "cross-attention", "rank": 1}])
    result = execute(config, tmp_path / "run")
    assert result.record["files"] == [LORA, f"stack-1/{LORA}"]
    base, attachments = load_run(tmp_path / "run")
    assert len(attachments) == 2
    noise = initial_noise(base, [0], (32, 32))
    stacked = sample(base, ["a dog"], noise, steps=2)
    with attachments[1].disabled():
        assert not torch.equal(sample(base, ["a dog"], noise, steps=2), stacked)


def test_pretraining_starts_from_nothing_and_ends_in_a_pipeline(make, tmp_path, monkeypatch):
    from inlay.run import previews

    read_as = []

    def watched(base, *arguments, **options):
        read_as.append(sampler_config(base)["prediction_type"])
        return sample(base, *arguments, **options)

    monkeypatch.setattr(previews, "sample", watched)
    denoiser = {
        "sample_size": 8,
        "block_out_channels": [16, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    config = make(
        PretrainConfig,
        method=None,
        denoiser=denoiser,
        objective={"prediction": "v_prediction", "weighting": {"name": "min_snr"}},
    )
    result = execute(config, tmp_path / "run")
    assert result.record["kind"] == "pretrain"
    assert read_as == ["v_prediction"]
    base, _ = load_run(tmp_path / "run")
    assert base.prediction == "v_prediction"
    assert base.unet.config.block_out_channels == [16, 16] or base.unet.config.block_out_channels == (16, 16)


def test_a_directory_is_never_mistaken_for_this_run_s(make, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="holds other files"):
        execute(make(), tmp_path / "mine")
    execute(make(train__steps=1), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"other settings \(train.steps\)"):
        execute(make(train__steps=2), tmp_path / "run")
    before = (tmp_path / "run" / "record.json").read_bytes()
    again = execute(make(train__steps=1), tmp_path / "run")
    assert again.repeated
    assert (tmp_path / "run" / "record.json").read_bytes() == before


def test_other_pictures_cannot_continue_a_run(make, photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    config = make(data__source=str(folder))
    with pytest.raises(Killed):
        execute(config, tmp_path / "run", KillAt(4))
    (folder / "0.png").unlink()
    with pytest.raises(ArtifactError, match="other data, base or start"):
        execute(config, tmp_path / "run")


def test_mistakes_are_found_before_weights_are_loaded(make, tmp_path, monkeypatch):
    monkeypatch.setattr(Job, "__init__", lambda *arguments: pytest.fail("the base was loaded"))
    with pytest.raises(TargetError, match="to_x"):
        execute(make(method={"name": "lora", "targets": ["to_x"]}), tmp_path / "run")
    with pytest.raises(ConfigError, match="no such directory"):
        execute(make(base="tabletopp"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_holds_no_pickled_code(make, tmp_path):
    with pytest.raises(Killed):
        execute(make(), tmp_path / "run", KillAt(3))
    [path] = checkpoints(tmp_path / "run" / "checkpoints")
    _, optimizer, facts = load_checkpoint(path)
    assert facts["step"] == 2
    assert set(optimizer) == {"optimizer", "scaler"}
    (path / "optimizer.pt").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_validation_uses_fixed_noise(make, tmp_path):
    config = make(data__validation=2, train__validate_every=1, train__learning_rate=1e-12)
    execute(config, tmp_path / "run")
    values = [entry["validation_loss"] for entry in read_trace(tmp_path / "run")]
    assert len(values) == 6
    assert max(values) - min(values) < 1e-6


def test_a_time_budget_ends_the_run(make, tmp_path):
    result = execute(make(train={"minutes": 0.02, "trackers": [], "batch_size": 2}), tmp_path / "run")
    assert result.finished
    assert result.record["costs"]["training_seconds"] >= 1.2
    assert all(entry["seconds"] < 1.2 for entry in read_trace(tmp_path / "run")[:-1])


def test_a_stack_that_could_not_be_saved_is_refused_at_once(make):
    with pytest.raises(ConfigError, match="full saves a whole model, into which adapter cannot be merged"):
        make(method="full", stack=[{"name": "adapter"}])


def test_a_run_on_weights_of_8_bits_goes_on_where_it_was_killed(make, tmp_path):
    """And its file is one like any other, near what the run on whole weights saves."""
    config = make(train__quantize="int8", train__gradient_checkpointing=True)
    execute(config, tmp_path / "whole")
    with pytest.raises(Killed):
        execute(config, tmp_path / "run", KillAt(5))
    resumed = execute(config, tmp_path / "run")
    assert resumed.record["resumed_from_step"] == 4
    found = load_file(tmp_path / "run" / LORA)
    assert all(torch.equal(found[name], value) for name, value in load_file(tmp_path / "whole" / LORA).items())
    execute(make(), tmp_path / "exact")
    exact = load_file(tmp_path / "exact" / LORA)
    assert found.keys() == exact.keys()
    apart = sum(float((found[name] - exact[name]).norm()) for name in exact)
    assert 0 < apart < 0.2 * sum(float(value.norm()) for value in exact.values())


def test_8_bits_are_for_weights_that_stay(make):
    with pytest.raises(ConfigError, match="quantize=int8 rounds the base's weights, which full saves as a whole model"):
        make(method="full", train__quantize="int8")
    denoiser = {"sample_size": 8, "block_out_channels": [16], "down_block_types": ["DownBlock2D"], "norm_num_groups": 8}
    with pytest.raises(ConfigError, match="quantize=int8 is for a frozen denoiser"):
        make(PretrainConfig, method=None, train__quantize="int8", denoiser=denoiser)
    with pytest.raises(ConfigError, match=r"train.quantize.*'int3'.*int8"):
        make(train__quantize="int3")
