"""Loading and the four maps of a base, each against diffusers' own."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inlay.base.architecture import read_architecture
from inlay.base.families import load_base
from inlay.base.locate import locate
from inlay.base.scratch import Scratch
from inlay.base.settings import BaseSettings
from inlay.base.stable_diffusion import PARTS, StableDiffusion
from inlay.errors import ConfigError
from tests.tiny import make_tiny_checkpoint

Load = Callable[..., StableDiffusion]
SCRATCH = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 2,
}


def pipeline(directory: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(directory, safety_checker=None)


def assert_equal_weights(ours: nn.Module, theirs: nn.Module) -> None:
    expected = theirs.state_dict()
    found = ours.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(params=["first", "second"])
def directory(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_a_directory_loads_as_diffusers_loads_it(directory: Path, load: Load):
    base, theirs = load(directory), pipeline(directory)
    for part in PARTS:
        assert_equal_weights(base.components[part], getattr(theirs, part))
        assert dict(base.components[part].named_buffers()).keys() == dict(getattr(theirs, part).named_buffers()).keys()
    assert list(base.components) == list(PARTS)
    assert not any(p.requires_grad for part in base.components.values() for p in part.parameters())
    assert not any(module.training for part in base.components.values() for module in part.modules())
    assert base.name == str(directory)


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_checkpoint_in_the_original_layout_loads_to_the_same(
    name: str, request: pytest.FixtureRequest, load: Load, tmp_path: Path
):
    directory = request.getfixturevalue(name)
    checkpoint = make_tiny_checkpoint(tmp_path, second=name == "second")
    base, expected = load(checkpoint, architecture=str(directory)), load(directory)
    for part in PARTS:
        assert_equal_weights(base.components[part], expected.components[part])
    assert base.prediction == expected.prediction
    assert base.tokenize(["a red dog"]).equal(expected.tokenize(["a red dog"]))


def test_a_checkpoint_whose_text_encoder_lacks_a_level_of_names(first: Path, load: Load, tmp_path: Path):
    checkpoint = make_tiny_checkpoint(tmp_path)
    state = {key.replace("transformer.text_model.", "transformer."): v for key, v in load_file(checkpoint).items()}
    save_file(state, checkpoint)
    base = load(checkpoint, architecture=str(first))
    assert_equal_weights(base.text_encoder, load(first).text_encoder)


def test_half_precision_files_load_in_float32(copied: Path, load: Load):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = {key: value.half() for key, value in load_file(file).items()}
    file.unlink()
    save_file(state, file.with_suffix(".fp16.safetensors"))
    unet = load(copied).unet
    assert all(torch.equal(value, state[name].float()) for name, value in unet.state_dict().items())
    assert unet.dtype == torch.float32


def test_shards_are_joined(copied: Path, load: Load):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    names = sorted(state)
    for number, part in enumerate((names[:50], names[50:]), start=1):
        save_file(
            {name: state[name] for name in part}, file.with_stem(f"diffusion_pytorch_model-0000{number}-of-00002")
        )
    file.unlink()
    unet = load(copied).unet
    assert all(torch.equal(value, state[name]) for name, value in unet.state_dict().items())


def test_names_of_older_files_are_understood(copied: Path, first: Path, load: Load):
    vae = copied / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(vae)
    for new, old in older.items():
        state = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): value for key, value in state.items()}
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in state
    save_file(state, vae)
    text = copied / "text_encoder" / "model.safetensors"
    named = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(text).items()}
    save_file({**named, "text_model.embeddings.position_ids": torch.arange(77)[None]}, text)
    base, expected = load(copied), load(first)
    assert_equal_weights(base.vae, expected.vae)
    assert_equal_weights(base.text_encoder, expected.text_encoder)


def test_the_hash_is_over_the_weights_files(first: Path, copied: Path, load: Load):
    names = ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]
    digests = [hashlib.sha256((first / f"{name}.safetensors").read_bytes()).digest() for name in names]
    assert load(first).file_hash == hashlib.sha256(b"".join(digests)).hexdigest()
    assert load(copied).file_hash == load(first).file_hash
    file = copied / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({key: value + 1 for key, value in load_file(file).items()}, file)
    assert load(copied).file_hash != load(first).file_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv_in.bias"), r"do not fit the configuration: 1 missing, such as conv_in\.bias$"),
        (lambda state: state.update(more=torch.zeros(1)), "configuration: 1 not expected, such as more$"),
        (
            lambda state: state.update({"conv_in.bias": torch.zeros(3)}),
            r"1 of another shape, such as conv_in\.bias \(3,\) instead of \(32,\)$",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(copied: Path, load: Load, change: Callable[..., Any], message: str):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)
    with pytest.raises(ConfigError, match=message):
        load(copied)


def test_files_that_cannot_be_read_are_named(copied: Path, first: Path, load: Load, tmp_path: Path):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"unet/diffusion_pytorch_model\.safetensors: not a readable"):
        load(copied)
    checkpoint = tmp_path / "model.safetensors"
    checkpoint.write_bytes(b"<html>")
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a readable safetensors file"):
        load(checkpoint)
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a readable safetensors file"):
        load(checkpoint, architecture=str(first))


def test_a_missing_tokenizer_is_one_clear_error(copied: Path, load: Load, tmp_path: Path):
    # transformers makes one up where it finds no files
    for source in (tmp_path, "openai/clip-vit-large-patch14"):
        with pytest.raises(ConfigError, match=rf"no vocabulary of a tokenizer at {source}; give base\.tokenizer"):
            load(copied, tokenizer=str(source))
    with pytest.raises(ConfigError, match=r"no tokenizer at /no/thing \(.*Error\); give base\.tokenizer"):
        load(copied, tokenizer="/no/thing")
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(ConfigError, match=r"no vocabulary of a tokenizer at openai/clip-vit-large-patch14; give"):
        load(copied)


def test_a_tokenizer_of_another_text_encoder_is_refused(copied: Path, load: Load):
    file = copied / "tokenizer" / "tokenizer.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["model"]["vocab"]["surplus"] = len(config["model"]["vocab"])
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match="has 217 tokens and the text encoder 216; give"):
        load(copied)


def test_a_tokenizer_can_be_given_and_be_of_the_older_files(copied: Path, first: Path, load: Load):
    expected = load(first).tokenize(["a photo of the sks dog, 12 tables"])
    load(first).save_pipeline(copied)
    shutil.move(copied / "tokenizer", copied / "elsewhere")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / "elsewhere" / name).unlink()
    assert sorted(path.name for path in (copied / "elsewhere").iterdir()) == ["merges.txt", "vocab.json"]
    base = load(copied, tokenizer=str(copied / "elsewhere"))
    assert base.tokenize(["a photo of the sks dog, 12 tables"]).equal(expected)


def test_text_is_encoded_as_in_the_pipeline(directory: Path, load: Load):
    base, theirs = load(directory), pipeline(directory)
    prompts = ["a photo of the red dog", "", "x" * 500]
    expected, negative = theirs.encode_prompt(prompts, "cpu", 1, True)
    with torch.no_grad():
        assert torch.equal(base.encode_text(prompts), expected)
        assert torch.equal(base.encode_text([""] * 3), negative)
    assert expected.shape == (3, *base.architecture.text_shape)


def test_prompts_that_are_cut_are_known(first: Path, load: Load, capfd: pytest.CaptureFixture[str]):
    base = load(first)
    fits = " ".join(["dog"] * 75)  # and the two marks of start and end
    assert base.overlong(["a dog", fits, f"{fits} dog"]) == [f"{fits} dog"]
    assert "longer than" not in capfd.readouterr().err


def test_images_are_encoded_as_by_the_autoencoder(directory: Path, load: Load):
    base, theirs = load(directory), pipeline(directory)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        posterior = theirs.vae.encode(pixels).latent_dist
    mean, std = base.encode_images(pixels)
    assert mean.shape == std.shape == (2, 4, 8, 8)
    assert torch.equal(mean, posterior.mean * theirs.vae.config.scaling_factor)
    assert torch.equal(std, posterior.std * theirs.vae.config.scaling_factor)


def test_latents_are_decoded_as_in_the_pipeline(directory: Path, load: Load):
    base, theirs = load(directory), pipeline(directory)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = theirs.vae.decode(latents / theirs.vae.config.scaling_factor, return_dict=False)[0]
    assert torch.equal(base.decode(latents), expected.clamp(-1, 1))


def test_predictions_are_the_denoiser_s(directory: Path, load: Load):
    base, theirs = load(directory), pipeline(directory)
    generator = torch.Generator().manual_seed(3)
    noisy, states = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, 64, generator=generator)
    states = states[:, :, : base.architecture.text_shape[1]]
    timesteps = torch.tensor([5, 800])
    with torch.no_grad():
        assert torch.equal(base.predict(noisy, timesteps, states), theirs.unet(noisy, timesteps, states).sample)


def test_casting_leaves_the_autoencoder_and_what_trains_in_float32(first: Path, load: Load):
    base = load(first)
    base.unet.conv_in.requires_grad_(True)
    base.cast_frozen(torch.bfloat16)
    unet = {name: parameter.dtype for name, parameter in base.unet.named_parameters()}
    assert {name for name, dtype in unet.items() if dtype == torch.float32} == {"conv_in.weight", "conv_in.bias"}
    assert {p.dtype for p in base.text_encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in base.vae.parameters()} == {torch.float32}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        prediction = base.predict(torch.randn(1, 4, 8, 8), torch.tensor([5]), base.encode_text(["a dog"]))
    assert prediction.isfinite().all()


def test_weights_of_8_bits_predict_nearly_the_same_and_are_known_as_others(first: Path, load: Load):
    base, whole = load(first), load(first)
    base.lighten(integers=True)
    assert base.part_hashes["unet"] != whole.part_hashes["unet"]
    assert {part: base.part_hashes[part] for part in ("vae", "text_encoder")} == {
        part: whole.part_hashes[part] for part in ("vae", "text_encoder")
    }
    noisy, timesteps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([5, 800])
    with torch.no_grad():
        states = whole.encode_text(["a dog", "a cat"])
        assert torch.equal(base.encode_text(["a dog", "a cat"]), states)
        expected, found = (one.predict(noisy, timesteps, states) for one in (whole, base))
    assert 0 < (found - expected).norm() < 0.02 * expected.norm()


def test_evaluating_switches_dropout_off_and_back_also_after_an_exception(first: Path, load: Load):
    base = load(first)
    base.unet.train()
    with base.evaluating():
        assert not base.unet.training
    assert base.unet.training
    with pytest.raises(KeyError), base.evaluating():
        raise KeyError
    assert base.unet.training
    assert not base.text_encoder.training


def test_a_saved_pipeline_opens_in_diffusers_to_identical_weights(directory: Path, load: Load, tmp_path: Path):
    base = load(directory, zero_terminal_snr=True)
    with torch.no_grad():
        for module in base.components.values():
            for parameter in module.parameters():
                parameter += 0.01
    base.save_pipeline(tmp_path)
    theirs, again = pipeline(tmp_path), load(tmp_path)
    for part in PARTS:
        assert_equal_weights(base.components[part], getattr(theirs, part))
        assert_equal_weights(base.components[part], again.components[part])
    assert theirs.tokenizer(["the sks dog"]).input_ids == base.tokenizer(["the sks dog"]).input_ids
    assert theirs.scheduler.config.prediction_type == base.prediction == again.prediction
    assert torch.equal(theirs.scheduler.alphas_cumprod, base.scheduler.alphas_cumprod)
    assert theirs.scheduler.config.timestep_spacing == "trailing"
    assert json.loads((tmp_path / "model_index.json").read_text(encoding="utf-8"))["safety_checker"] == [None, None]
    assert (tmp_path / "tokenizer" / "vocab.json").is_file()


def test_plain_diffusers_draws_with_what_a_run_in_half_precision_saved(directory: Path, load: Load, tmp_path: Path):
    base = load(directory)
    base.text_encoder.to(torch.bfloat16)  # as a frozen part is kept; what trained is float32
    base.save_pipeline(tmp_path)
    theirs = pipeline(tmp_path)
    drawn = theirs("a dog", num_inference_steps=1, output_type="np", height=32, width=32).images[0]
    assert drawn.shape == (32, 32, 3)


def test_a_denoiser_from_scratch_follows_from_the_seed(copied: Path, first: Path):
    settings = BaseSettings(model=str(copied))
    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    state = torch.random.get_rng_state()
    one, same, other = (load_base(settings, Scratch(SCRATCH, "text", None, "auto"), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_equal_weights(one.unet, same.unet)
    assert not torch.equal(one.unet.conv_in.weight, other.unet.conv_in.weight)
    assert one.unet.config.block_out_channels == (16, 32)
    assert one.unet.config.in_channels == one.unet.config.out_channels == 4
    assert one.unet.config.cross_attention_dim == 32
    with torch.no_grad():
        assert one.predict(torch.randn(1, 4, 8, 8), torch.tensor([3]), one.encode_text(["a dog"])).shape == (1, 4, 8, 8)


def test_a_denoiser_from_scratch_between_the_parts_of_a_checkpoint(first: Path, tmp_path: Path):
    settings = BaseSettings(model=str(make_tiny_checkpoint(tmp_path)), architecture=str(first))
    base = load_base(settings, Scratch(SCRATCH, "text", None, "auto"), seed=1)
    assert base.unet.config.block_out_channels == (16, 32)
    assert_equal_weights(base.vae, pipeline(first).vae)
    assert_equal_weights(base.text_encoder, pipeline(first).text_encoder)


def test_a_denoiser_from_scratch_fits_the_base(second: Path):
    settings = BaseSettings(model=str(second))
    fitted = read_architecture(settings, locate(settings), {**SCRATCH, "cross_attention_dim": 7, "in_channels": 9})
    assert fitted.unet["cross_attention_dim"] == 64
    assert fitted.unet["in_channels"] == fitted.unet["out_channels"] == 4
    assert fitted.unet["block_out_channels"] == (16, 32)
