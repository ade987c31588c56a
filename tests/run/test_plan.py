"""Plans against closed forms, against what a run writes, and on the architectures without weights."""

import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from inlay.errors import ConfigError, DataError, TargetError
from inlay.files import write_tensors
from inlay.methods import Lora
from inlay.run.config import PretrainConfig, RunConfig
from inlay.run.disk import safetensors_bytes
from inlay.run.load_job import load_job
from inlay.run.plan import make_plan
from inlay.run.probe import preview_rounds, probe
from tests.tiny import RESOLUTION, make_tiny_components, make_tiny_pipeline

NOWHERE = "no/such/folder"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a dog {number % 2}")
    return folder


# Plans of equal configurations are equal, and each takes about a second.
planned = functools.cache(make_plan)


def config(model, source=NOWHERE, **sections):
    data = {"source": str(source), "resolution": 64, **sections.pop("data", {})}
    train = {"steps": 5, **sections.pop("train", {})}
    sections.setdefault("method", "lora")
    return RunConfig.model_validate({"base": str(model), "data": data, "train": train, **sections})


# Cross-attention of Stable Diffusion 1.x at 16 places, its query and key: r (320 + 320 + 768 + 320) and so on.
def cross_attention_query_key(rank):
    places = {320: 5, 640: 5, 1280: 6}
    return sum(count * rank * ((width + width) + (768 + width)) for width, count in places.items())


@pytest.mark.parametrize(("rank", "expected"), [(4, 198_912), pytest.param(5, 248_640, marks=pytest.mark.slow)])
def test_lora_counts_of_stable_diffusion(rank, expected):
    plan = planned(config("sd-v1.4", method={"name": "lora", "rank": rank, "targets": "cross-attention-qk"}))
    assert plan.trainable_parameters == expected == cross_attention_query_key(rank)
    assert plan.base_parameters == 859_520_964
    assert plan.trainable_percent == pytest.approx(100 * expected / 859_520_964)
    kinds = {group.name: group.trainable_parameters for group in plan.kinds if group.trainable_parameters}
    assert kinds == {"cross-attention": expected}
    blocks = {group.name: group.trainable_parameters for group in plan.blocks if group.trainable_parameters}
    assert list(blocks) == ["down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block"] + [
        f"up_blocks.{level}" for level in (1, 2, 3)
    ]
    assert plan.disk.result_bytes == pytest.approx(4 * expected, rel=0.05)


@pytest.mark.parametrize(
    ("base", "unet", "text", "prediction"),
    [
        pytest.param("sd-v1.4", 859_520_964, 123_060_480, "epsilon", marks=pytest.mark.slow),
        ("sd-v2.1", 865_910_724, 340_387_840, "v_prediction"),
    ],
)
def test_full_tuning_of_the_built_in_architectures(base, unet, text, prediction):
    plan = planned(config(base, method="full"))
    assert plan.trainable_parameters == plan.base_parameters == unet
    assert plan.trainable_percent == 100
    assert plan.part_parameters == {"unet": unet, "vae": 83_653_863, "text_encoder": text}
    assert sum(group.base_parameters for group in plan.blocks) == unet
    assert sum(group.trainable_parameters for group in plan.kinds) == unet
    assert plan.effective.prediction == prediction
    assert plan.memory.trained_weights_bytes == plan.memory.gradients_bytes == 4 * unet
    assert plan.memory.optimizer_bytes == 8 * unet
    assert plan.memory.originals_bytes == 4 * unet
    assert plan.disk.result_bytes == 4 * (unet + text + 83_653_863)
    assert plan.disk.checkpoints_bytes == 2 * 3 * 4 * unet
    assert any("without weights" in warning for warning in plan.warnings)


def test_without_pictures_the_rest_is_planned(tiny):
    plan = planned(config(tiny))
    assert plan.data.pictures is None
    assert plan.data.missing is not None
    assert "no folder" in plan.data.missing
    assert any(plan.data.missing in warning for warning in plan.warnings)
    assert (plan.effective.steps, plan.effective.images, plan.effective.epochs) == (5, 20, None)
    assert plan.disk.latents_bytes is None
    assert plan.trainable_parameters > 0
    assert planned(config(tiny, train={"steps": None, "epochs": 2})).effective.steps is None


def test_with_pictures_steps_and_caches_are_counted(tiny, pictures):
    plan = planned(config(tiny, pictures, data={"horizontal_flip": 0.5, "repeats": 2}, train={"epochs": 4}))
    assert (plan.data.pictures, plan.data.images_per_epoch, plan.data.missing) == (3, 6, None)
    assert plan.data.hash is not None
    assert (plan.effective.steps, plan.effective.images) == (5, 20)
    assert plan.effective.epochs == pytest.approx(20 / 6)
    assert plan.disk.latents_bytes == 3 * 2 * 2 * 4 * 16 * 16 * 4  # flipped or not, mean and deviation
    assert plan.disk.text_bytes == 3 * 77 * 32 * 4  # two captions and the empty one
    assert plan.work.training_flops == 5 * (plan.work.forward_step_flops + plan.work.backward_step_flops)
    assert any("enlarged" in warning for warning in plan.warnings)
    random = planned(config(tiny, pictures, data={"crop": "random"}))
    assert random.disk.latents_bytes == 0
    extra = random.work.forward_step_flops - 4 * random.work.forward_image_flops
    assert extra == 4 * random.work.encode_picture_flops


def test_pictures_that_are_there_but_wrong_are_refused(tiny, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.txt").write_text("a dog")
    with pytest.raises(DataError, match=r"a\.png"):
        make_plan(config(tiny, tmp_path))


def test_captions_beyond_the_text_encoder_are_counted(tiny, pictures, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("dog " * 100)
    assert any("1 of 1 captions" in warning for warning in planned(config(tiny, tmp_path)).warnings)
    assert not any("captions are longer" in warning for warning in planned(config(tiny, pictures)).warnings)


def test_a_figure_that_too_few_pictures_cannot_give_is_announced(pictures):
    def warned(**evaluate):
        asked = {"metrics": ["kid", "frechet_infinity"], "prompts": ["a dog", "a cat"], **evaluate}
        found = make_plan(config("tabletop", pictures, method="bitfit", evaluate=asked)).warnings
        return [warning for warning in found if "frechet_infinity" in warning]

    (warning,) = warned(pictures=1151)
    assert "2302 pictures are drawn, and with the features of tabletop it needs 2304; set evaluate.pictures" in warning
    assert not warned(pictures=1152)
    assert not warned(pictures=2, metrics=["kid"])
    assert not warned(pictures=2, features=["clip:some/where", "tabletop"], metrics=None)
    (of_captions,) = warned(pictures=767, prompts=None)  # no prompts: the captions, of which there are two
    assert "1534 pictures are drawn" in of_captions


def test_an_evaluation_that_cannot_be_is_refused(tiny, pictures):
    with pytest.raises(ConfigError, match=r"evaluate\.features: say which network looks at the pictures"):
        make_plan(config(tiny, pictures, evaluate={"metrics": ["kid"]}))


def test_what_does_not_fit_the_base_is_refused_before_anything_is_counted(tiny):
    with pytest.raises(TargetError, match="nothing_like_this"):
        make_plan(config(tiny, method={"name": "lora", "targets": ["nothing_like_this"]}))
    with pytest.raises(ConfigError, match="no such directory"):
        make_plan(config("./nowhere"))
    base = {"model": str(tiny), "zero_terminal_snr": True}
    with pytest.raises(ConfigError, match="has no bound"):
        make_plan(config(tiny, base=base, objective={"weighting": {"name": "constant"}}))


def test_the_base_decides_what_the_run_file_leaves_open(tmp_path):
    second = make_tiny_pipeline(
        tmp_path, prediction_type="v_prediction", second=True, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    run = config(second, data={"resolution": None}, train={"batch_size": 6, "accumulate": 3})
    effective = planned(run).effective
    assert effective.prediction == "v_prediction"
    assert effective.zero_terminal_snr
    assert effective.resolution_pixels == RESOLUTION
    assert effective.micro_batch_images == 2
    assert effective.learning_rate == Lora.learning_rate
    assert effective.weight_range == (1, 1)
    assert not any("was trained at" in warning for warning in planned(run).warnings)
    assert any("was trained at" in warning for warning in planned(config(second)).warnings)


def test_micro_batches_save_memory_and_no_arithmetic(tiny):
    whole = planned(config(tiny, train={"batch_size": 8}))
    parts = planned(config(tiny, train={"batch_size": 8, "accumulate": 4}))
    assert parts.work.forward_step_flops == whole.work.forward_step_flops
    assert parts.memory.activations_bytes < whole.memory.activations_bytes / 2
    ema = planned(config(tiny, train={"batch_size": 8, "ema": {}})).memory
    assert ema.average_bytes == whole.memory.trained_weights_bytes
    assert whole.memory.average_bytes == 0


def test_memory_parts_add_up(tiny):
    for method in ("lora", "full"):
        memory = planned(config(tiny, method=method, train={"ema": {}})).memory
        parts = (
            memory.frozen_weights_bytes
            + memory.trained_weights_bytes
            + memory.optimizer_bytes
            + memory.average_bytes
            + memory.originals_bytes
            + memory.libraries_bytes
            + memory.gradients_bytes
            + memory.activations_bytes
            + memory.allocator_bytes
            - memory.overlap_bytes
        )
        assert memory.training_bytes == parts
        assert memory.peak_bytes == max(memory.encoding_bytes, memory.training_bytes, memory.previews_bytes)
        assert memory.training_bytes_other < memory.training_bytes
    checkpointing = planned(config(tiny, method="full", train={"ema": {}, "gradient_checkpointing": True})).memory
    assert checkpointing.training_bytes < checkpointing.training_bytes_other


def test_half_precision_halves_frozen_weights(tiny):
    full, half = (planned(config(tiny, train={"precision": name})) for name in ("fp32", "bf16"))
    vae = 4 * full.part_parameters["vae"]
    frozen = half.memory.frozen_weights_bytes - vae
    assert frozen == pytest.approx((full.memory.frozen_weights_bytes - vae) / 2, rel=0.01)
    assert half.memory.trained_weights_bytes == full.memory.trained_weights_bytes
    assert half.memory.activations_bytes < full.memory.activations_bytes


def test_8_bits_leave_the_denoiser_a_quarter_of_its_weights_and_no_more_activations(tiny):
    full, small = (planned(config(tiny, train={"quantize": kept})) for kept in (None, "int8"))
    unet = 4 * full.part_parameters["unet"]
    saved = full.memory.frozen_weights_bytes - small.memory.frozen_weights_bytes
    assert 0.6 * unet < saved < 0.75 * unet  # biases, norms, scales, the first and the last layer stay
    assert 0.8 * full.memory.kept_for_backward_bytes < small.memory.kept_for_backward_bytes
    assert small.memory.kept_for_backward_bytes < full.memory.kept_for_backward_bytes  # of inputs too
    assert small.work.training_flops == full.work.training_flops


def test_methods_stack(tiny):
    stacked = planned(config(tiny, method={"name": "lora", "rank": 2}, stack=({"name": "lora", "rank": 3},)))
    one = planned(config(tiny, method={"name": "lora", "rank": 5}))
    assert stacked.trainable_parameters == one.trainable_parameters
    assert [method.name for method in stacked.methods] == ["lora", "lora"]
    assert sum(group.trainable_parameters for group in stacked.kinds) == stacked.trainable_parameters
    text = planned(config(tiny, method={"name": "lora", "text_encoder": True}))
    assert text.methods[0].components == ("text_encoder", "unet")
    assert text.base_parameters == text.part_parameters["unet"] + text.part_parameters["text_encoder"]
    assert text.disk.text_bytes == 0


def test_a_denoiser_from_scratch_is_planned(tiny):
    denoiser = {"sample_size": 16, "block_out_channels": [32], "down_block_types": ["CrossAttnDownBlock2D"]}
    data = {"base": str(tiny), "data": {"source": NOWHERE}, "train": {"steps": 3}, "denoiser": denoiser}
    pretrain = PretrainConfig.model_validate(data)
    plan = planned(pretrain)
    assert plan.trainable_percent == 100
    assert plan.base_parameters != sum(p.numel() for p in make_tiny_components()["unet"].parameters())
    assert plan.effective.resolution_pixels == 64
    assert plan.effective.learning_rate == 1e-4


def test_the_size_of_a_file_is_exact(tmp_path):
    parts = make_tiny_components()
    attachment = Lora(rank=3, text_encoder=True).attach(parts)
    path = write_tensors(tmp_path / "a.safetensors", attachment.state(), {**attachment.metadata(), "trigger": "dög"})
    predicted = safetensors_bytes(attachment.state(), {**attachment.metadata(), "trigger": "dög"})
    assert predicted == path.stat().st_size


def test_a_plan_is_json_with_one_set_of_keys(tiny, pictures):
    with_data, without = (planned(config(tiny, source)).to_json() for source in (pictures, NOWHERE))

    def keys(value):
        return {key: keys(part) for key, part in value.items()} if isinstance(value, dict) else None

    assert keys(with_data) == keys(without)
    assert json.loads(json.dumps(with_data)) == with_data


def test_two_steps_are_measured_and_leave_nothing_behind(tiny, pictures, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("INLAY_CACHE", str(cache))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    run = config(tiny, pictures, train={"steps": 100, "batch_size": 2}, preview={"every": 40})
    plan = planned(run)
    measured = probe(run, plan)
    assert 0 < measured.seconds_per_step < 30
    assert measured.peak_bytes > 2**27
    assert measured.training_seconds == pytest.approx(100 * measured.seconds_per_step)
    assert measured.finish_seconds == pytest.approx(
        measured.encoding_seconds + measured.training_seconds + measured.previews_seconds
    )
    assert list(tmp_path.iterdir()) == []
    assert preview_rounds(run, 100 * 0.5, 0.5) == 4
    timed = run.model_copy(update={"train": run.train.model_copy(update={"steps": None, "minutes": 2.0})})
    assert probe(timed, plan).training_seconds == 120


def test_a_probe_needs_weights_and_pictures(tiny):
    run = config(tiny)
    with pytest.raises(DataError, match="no folder"):
        probe(run, planned(run))


def test_the_key_denoiser_decides_what_a_run_file_is(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("base: tabletop\ndata: photos\nmethod: lora\ntrain: {steps: 3}\n")
    job = load_job(path, ["method.rank=2"])
    assert isinstance(job, RunConfig)
    assert job.method == Lora(rank=2)
    scratch = "denoiser={sample_size: 8, block_out_channels: [32], down_block_types: [DownBlock2D]}"
    with pytest.raises(ConfigError, match="both `method`"):
        load_job(path, [scratch])
    assert isinstance(load_job(path, [scratch, "method=null"]), PretrainConfig)


def test_no_torch_seed_is_spent_on_a_plan(tiny):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    make_plan(config(tiny))
    assert torch.equal(torch.random.get_rng_state(), before)
