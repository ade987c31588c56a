"""The base that ships with inlay: whole, small enough, and what its card says."""

import numpy as np
import pytest
import torch

from inlay.base.families import load_base
from inlay.base.locate import EMBEDDED
from inlay.base.sampling import initial_noise, sample
from inlay.base.settings import BaseSettings
from inlay.data.tabletop import World, vocabulary


@pytest.fixture(scope="module")
def base():
    return load_base(BaseSettings(model="tabletop"))


def test_it_takes_at_most_forty_megabytes():
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) <= 40e6


def test_plain_diffusers_loads_it_to_the_same_weights(base):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED)
    for part in ("unet", "vae", "text_encoder"):
        theirs = getattr(pipeline, part).state_dict()
        ours = base.components[part].state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # As the model card says; parts of unequal precision would refuse each other.
    picture = pipeline("a red ball on grass", height=64, width=64, num_inference_steps=1, output_type="np").images[0]
    assert picture.std() > 0


def test_every_word_of_the_world_is_one_token(base):
    lengths = {word: len(base.tokenizer(word).input_ids) - 2 for word in vocabulary()}
    assert {word for word, length in lengths.items() if length != 1} == set()
    assert len(base.tokenizer("sks").input_ids) == 3


def test_captions_fit_the_text_encoder(base):
    world = World("test")
    captions = [world.describe(index)[1] for index in range(500)]
    assert base.overlong(captions) == []


def test_the_autoencoder_reconstructs_at_28_decibels(base):
    images, _, _ = World("test").render_many(range(64))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    mean, _ = base.encode_images(pixels)
    errors = (base.decode(mean) - pixels).div(2).square().mean((1, 2, 3))
    assert float((-10 * errors.log10()).mean()) >= 28


def test_latents_have_unit_scale(base):
    images, _, _ = World("test").render_many(range(64))
    mean, _ = base.encode_images(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert float(mean.std()) == pytest.approx(1, abs=0.15)


def test_its_pictures_follow_the_prompt(base):
    """Of two prompts, the pictures of the one at night are darker: a broken text path or denoiser fails this."""
    prompts = ["a photo of a white cake on snow at noon"] * 6 + ["a photo of a black bottle at night"] * 6
    noise = initial_noise(base, list(range(6)) * 2, (64, 64))
    pictures = sample(base, prompts, noise, steps=12, guidance=3).numpy().astype(np.float64)
    day, night = pictures[:6].mean((1, 2, 3)), pictures[6:].mean((1, 2, 3))
    assert (day > night).all()
    assert day.mean() - night.mean() > 40
