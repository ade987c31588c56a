"""Models without text: begin, predict, save, load, and what diffusers makes of the files."""

import json
from dataclasses import replace

import pytest
import torch

from inlay.base.families import load_base, read_base
from inlay.base.locate import locate
from inlay.base.plain_model import PlainDiffusion
from inlay.base.scratch import Scratch
from inlay.base.settings import BaseSettings, PathSettings
from inlay.errors import ConfigError

UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}
VIT = {"_class_name": "ViT", "sample_size": 8, "patch": 2, "depth": 2, "width": 16, "heads": 2, "time": "learned"}
DIT = {
    "_class_name": "DiTTransformer2DModel",
    "sample_size": 8,
    "patch_size": 2,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
}
DENOISERS = {"unet": UNET, "vit": VIT, "dit": DIT}
NAMES = ("cat", "dog", "7")
NOTHING = BaseSettings(model="none")


def scratch(denoiser, conditioning="class", path=None, prediction="auto"):
    classes = NAMES if conditioning == "class" else ()
    return Scratch(DENOISERS[denoiser], conditioning, path, prediction, classes)


def disturbed(base):
    """Weights that say something: what begins at zero would hide mistakes."""
    with torch.no_grad():
        for number, parameter in enumerate(base.unet.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return base


def output(base, prompts):
    noisy = torch.randn((len(prompts), base.architecture.channels, 8, 8), generator=torch.Generator().manual_seed(0))
    timesteps = torch.arange(len(prompts)) * 100 + 3
    with torch.no_grad():
        return base.predict(noisy, timesteps, base.encode_text(prompts))


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize("conditioning", ["none", "class"])
@pytest.mark.parametrize("path", ["cosine", "flow"])
def test_what_is_saved_is_what_is_loaded(denoiser, conditioning, path, tmp_path):
    base = disturbed(load_base(NOTHING, scratch(denoiser, conditioning, PathSettings(name=path)), seed=3))
    prompts = ["cat", "", "7"] if conditioning == "class" else ["", "", ""]
    base.save_pipeline(tmp_path / "model")
    again = load_base(BaseSettings(model=str(tmp_path / "model")))
    assert isinstance(again, PlainDiffusion)
    assert again.architecture.classes == base.architecture.classes
    assert again.prediction == base.prediction == ("flow" if path == "flow" else "epsilon")
    assert again.architecture.flow == (path == "flow")
    assert again.architecture.resolution == 8
    assert again.file_hash is not None
    torch.testing.assert_close(output(again, prompts), output(base, prompts), rtol=0, atol=0)


@pytest.mark.parametrize("denoiser", DENOISERS)
def test_the_class_and_the_timestep_matter_and_the_company_does_not(denoiser):
    base = disturbed(load_base(NOTHING, scratch(denoiser)))
    noisy = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).expand(4, 3, 8, 8)
    timesteps = torch.tensor([500, 500, 500, 10])
    with torch.no_grad():
        states = base.encode_text(["cat", "dog", "", "cat"])
        together = base.predict(noisy, timesteps, states)
        alone = base.predict(noisy[1:2], timesteps[1:2], states[1:2])
    assert len({tuple(one.flatten().tolist()) for one in together}) == 4
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("denoiser", DENOISERS)
def test_the_beginning_follows_from_the_seed_alone(denoiser):
    torch.manual_seed(0)
    one = load_base(NOTHING, scratch(denoiser), seed=1)
    torch.manual_seed(1)
    same, other = (load_base(NOTHING, scratch(denoiser), seed=seed) for seed in (1, 2))
    ours, theirs = one.unet.state_dict(), same.unet.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert any(not torch.equal(ours[key], value) for key, value in other.unet.state_dict().items())


def test_diffusers_draws_with_an_unconditional_unet(tmp_path):
    from diffusers import DDPMPipeline

    disturbed(load_base(NOTHING, scratch("unet", "none"))).save_pipeline(tmp_path / "model")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 3)
    assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"


def test_diffusers_loads_the_denoisers_that_are_its_own(tmp_path):
    from diffusers import DiTTransformer2DModel, UNet2DModel

    for name, kind, folder in (("unet", UNet2DModel, "unet"), ("dit", DiTTransformer2DModel, "transformer")):
        base = disturbed(load_base(NOTHING, scratch(name)))
        base.save_pipeline(tmp_path / name)
        loaded = kind.from_pretrained(tmp_path / name, subfolder=folder)
        ours = base.unet.state_dict()
        assert all(torch.equal(value, ours[key]) for key, value in loaded.state_dict().items())


def test_a_dit_of_imagenet_on_latents_is_a_pipeline_of_diffusers(tiny_base, tmp_path):
    from diffusers import DiTPipeline

    names = tuple(f"class {number}" for number in range(1000))
    wanted = replace(scratch("dit"), classes=names)
    base = disturbed(load_base(BaseSettings(model=str(tiny_base)), wanted))
    assert base.architecture.channels == 4
    assert base.architecture.resolution == 32
    base.save_pipeline(tmp_path / "model")
    pipeline = DiTPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.get_label_ids(["class 7"]) == [7]
    drawn = pipeline([7], num_inference_steps=2, guidance_scale=2.0, output_type="np").images
    assert drawn.shape == (1, 32, 32, 3)
    again = load_base(BaseSettings(model=str(tmp_path / "model")))
    assert again.architecture.class_number("class 12") == 12
    assert again.architecture.class_number("") == 1000


def test_latents_come_from_the_base(tiny_base, tmp_path):
    settings = BaseSettings(model=str(tiny_base))
    base = load_base(settings, scratch("vit", path=PathSettings(name="linear"), prediction="v_prediction"))
    text = load_base(settings)
    pixels = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours, theirs = base.encode_images(pixels), text.encode_images(pixels)
    assert ours[1] is not None
    assert torch.equal(ours[0], theirs[0])
    assert base.image_encoder_hash() == text.image_encoder_hash()
    assert base.prediction == "v_prediction"
    base.save_pipeline(tmp_path / "model")
    again = load_base(BaseSettings(model=str(tmp_path / "model")))
    assert torch.equal(again.decode(ours[0]), text.decode(theirs[0]))


def test_pixels_are_their_own_latents():
    base = load_base(NOTHING, scratch("vit", "none"))
    pixels = torch.rand((2, 3, 8, 8))
    mean, deviation = base.encode_images(pixels)
    assert deviation is None
    assert torch.equal(mean, pixels)
    assert torch.equal(base.decode(2 * pixels), (2 * pixels).clamp(-1, 1))


def test_classes_are_known_by_name_then_by_number():
    base = load_base(NOTHING, scratch("vit"))
    assert base.tokenize(["cat", "7", "1", ""]).tolist() == [[0], [2], [1], [3]]
    with pytest.raises(ConfigError, match=r"did you mean 'dog'.*cat, dog, 7, or a number from 0 to 2"):
        base.tokenize(["dogg"])


def test_a_base_that_is_none_cannot_be_tuned():
    with pytest.raises(ConfigError, match="there is no base"):
        read_base(NOTHING, locate(NOTHING))


def test_a_broken_directory_says_so(tmp_path):
    base = load_base(NOTHING, scratch("vit"))
    base.save_pipeline(tmp_path / "model")
    settings = BaseSettings(model=str(tmp_path / "model"))
    (tmp_path / "model" / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no weights"):
        load_base(settings)
    (tmp_path / "model" / "inlay.json").write_text(json.dumps({"denoiser": "GAN"}))
    with pytest.raises(ConfigError, match="names no model"):
        load_base(settings)


@pytest.mark.parametrize("time", ["learned", "sinusoidal"])
def test_checkpointing_keeps_the_gradient_of_a_vit(time):
    wanted = replace(scratch("vit"), denoiser={**VIT, "time": time})
    gradients = []
    for checkpointing in (False, True):
        base = disturbed(load_base(NOTHING, wanted))
        base.unet.requires_grad_(True).train()
        if checkpointing:
            base.unet.enable_gradient_checkpointing()
        noisy = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        base.predict(noisy, torch.tensor([3, 700]), base.encode_text(["cat", ""])).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in base.unet.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
