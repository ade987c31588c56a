"""Stable Diffusion XL: loading, reading prompts, predicting and drawing, each against diffusers' own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from inlay.base.architecture_xl import ArchitectureXL
from inlay.base.contract import Base
from inlay.base.families import load_base, read_base
from inlay.base.locate import locate
from inlay.base.sampling import initial_noise, sample
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError
from tests.tiny import RESOLUTION, make_tiny_xl_checkpoint, make_tiny_xl_pipeline

PARTS = ["unet", "vae", "text_encoder", "text_encoder_2"]
PROMPTS = ["a photo of the red dog", "the ball"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_xl_pipeline(tmp_path_factory.mktemp("xl"))


def load(path: Path, **settings: Any) -> Base:
    return load_base(BaseSettings(model=str(path), **settings))


def pipeline(directory: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(directory, add_watermarker=False)


def same_weights(one: Base, other: Any) -> bool:
    states = [(one.components[part].state_dict(), getattr(other, part).state_dict()) for part in PARTS]
    return all(
        ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        for ours, theirs in states
    )


def by_diffusers(directory: Path, noise: torch.Tensor, **settings: Any) -> torch.Tensor:
    from diffusers import DPMSolverMultistepScheduler

    pipe = pipeline(directory)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    side = {"height": RESOLUTION, "width": RESOLUTION}
    found = pipe(prompt=PROMPTS, latents=noise, output_type="np", **side, **settings).images
    return torch.from_numpy((found * 255).round()).to(torch.uint8)


def test_a_directory_loads_as_diffusers_loads_it(directory: Path):
    base = load(directory)
    assert list(base.components) == PARTS
    assert same_weights(base, pipeline(directory))
    assert base.architecture.readers == ("text_encoder", "text_encoder_2")
    assert not any(p.requires_grad for part in base.components.values() for p in part.parameters())


def test_prompts_are_read_as_diffusers_reads_them(directory: Path):
    base = load(directory)
    states, _, pooled, _ = pipeline(directory).encode_prompt(
        PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    conditions = base.encode_text(PROMPTS)
    assert conditions.shape == (2, *(base.architecture.text_shape or ()))
    assert torch.equal(conditions[:, :-1], states)
    assert torch.equal(conditions[:, -1, : pooled.shape[1]], pooled)
    assert not conditions[:, -1, pooled.shape[1] :].any()


def test_the_empty_prompt_is_zero_unless_the_pipeline_says_otherwise(directory: Path, tmp_path: Path):
    assert not load(directory).encode_text(["", "dog"])[0].any()
    other = Path(shutil.copytree(directory, tmp_path / "xl"))
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": False}))
    changed = load(other)
    assert changed.encode_text(["", "dog"])[0].any()
    assert changed.prompt_reader_hash() != load(directory).prompt_reader_hash()
    assert changed.part_hashes == load(directory).part_hashes


@pytest.mark.parametrize(("guidance", "negative"), [(1.0, ""), (4.0, ""), (4.0, "red table")])
def test_pictures_are_those_of_diffusers(directory: Path, guidance: float, negative: str):
    base = load(directory)
    noise = initial_noise(base, [3, 4], (RESOLUTION, RESOLUTION))
    ours = sample(base, PROMPTS, noise, 5, guidance, negative)
    stated = {"negative_prompt": [negative] * 2} if negative else {}
    theirs = by_diffusers(directory, noise, num_inference_steps=5, guidance_scale=guidance, **stated)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert ours.float().std() > 1


def test_a_saved_pipeline_loads_and_draws_the_same(directory: Path, tmp_path: Path):
    base = load(directory)
    base.save_pipeline(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert same_weights(again, pipeline(directory))
    for name in ("text_encoder", "text_encoder_2"):
        assert json.loads((tmp_path / "saved" / name / "config.json").read_text())["dtype"] == "float32"
    noise = initial_noise(base, [0, 1], (RESOLUTION, RESOLUTION))
    ours = sample(base, PROMPTS, noise, 4, 3.0)
    assert torch.equal(sample(again, PROMPTS, noise, 4, 3.0), ours)
    theirs = by_diffusers(tmp_path / "saved", noise, num_inference_steps=4, guidance_scale=3.0)
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_a_checkpoint_in_the_original_layout_loads_to_the_same(directory: Path, tmp_path: Path):
    checkpoint = make_tiny_xl_checkpoint(tmp_path)
    base = load(checkpoint, architecture=str(directory))
    assert same_weights(base, pipeline(directory))
    assert torch.equal(base.encode_text(PROMPTS), load(directory).encode_text(PROMPTS))


def test_the_published_architecture():
    settings = BaseSettings(model="sdxl")
    architecture = read_base(settings, locate(settings, weights=False))
    assert isinstance(architecture, ArchitectureXL)
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in architecture.meta().items()}
    # Of the published files: 2.57 B, 83.7 M, CLIP ViT-L's text tower, and OpenCLIP ViT-bigG's with its projection.
    assert counts == {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    }
    assert (architecture.resolution, architecture.text_shape, architecture.prompt_ids) == (1024, (78, 2048), 154)


def test_the_refiner_is_refused(directory: Path, tmp_path: Path):
    refiner = Path(shutil.copytree(directory, tmp_path / "refiner"))
    shutil.rmtree(refiner / "text_encoder_2")
    with pytest.raises(ConfigError, match=r"no text_encoder_2/config.json; its refiner.* is not supported"):
        load(refiner)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cross_attention_dim", 40, "states of width 48, and the denoiser reads 40"),
        ("projection_class_embeddings_input_dim", 80, "a vector of 72 numbers, and the denoiser reads 80"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(directory: Path, tmp_path: Path, key, value, message):
    other = Path(shutil.copytree(directory, tmp_path / "xl"))
    config = json.loads((other / "unet" / "config.json").read_text())
    (other / "unet" / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ConfigError, match=message):
        load(other)
