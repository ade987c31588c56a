"""Pictures equal those of diffusers' pipeline from the same noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inlay.base.sampling import initial_noise, sample, sampler_config, to_uint8
from inlay.base.stable_diffusion import StableDiffusion
from tests.tiny import make_tiny_pipeline

Load = Callable[..., StableDiffusion]
PROMPTS = ["a photo of the red dog", "the table", "a ball"]


def by_diffusers(directory: Path, noise: Tensor, **settings: Any) -> Tensor:
    """Draw as a user of diffusers would, having changed the scheduler as its documentation shows."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(directory, safety_checker=None)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(PROMPTS, latents=noise, output_type="np", **settings).images
    return torch.from_numpy(images * 255).round().to(torch.uint8)


@pytest.mark.parametrize(
    ("prediction", "scheduler"),
    [
        ("epsilon", {}),
        ("epsilon", {"timestep_spacing": "linspace"}),
        ("v_prediction", {}),
        ("v_prediction", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        ("sample", {}),
    ],
)
@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_pictures_are_those_of_diffusers(
    prediction: str, scheduler: dict[str, Any], guidance: float, load: Load, tmp_path: Path
):
    directory = make_tiny_pipeline(tmp_path, prediction, second=prediction == "v_prediction", **scheduler)
    base = load(directory)
    noise = initial_noise(base, [1, 2, 3], (32, 32))
    ours = sample(base, PROMPTS, noise, steps=6, guidance=guidance, negative_prompt="red")
    theirs = by_diffusers(directory, noise, num_inference_steps=6, guidance_scale=guidance, negative_prompt=["red"] * 3)
    assert ours.shape == (3, 32, 32, 3)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert ours.float().std() > 10, "pictures that a difference could show in"


def test_a_saved_pipeline_draws_the_same_in_diffusers(first: Path, load: Load, tmp_path: Path):
    base = load(first, prediction="v_prediction", zero_terminal_snr=True)
    base.save_pipeline(tmp_path)
    noise = initial_noise(base, [4, 5, 6], (32, 32))
    theirs = by_diffusers(tmp_path, noise, num_inference_steps=5, guidance_scale=3.0)
    assert (sample(base, PROMPTS, noise, steps=5, guidance=3.0).int() - theirs.int()).abs().max() <= 1


def test_with_zero_terminal_snr_sampling_starts_where_no_signal_is(first: Path, load: Load):
    from diffusers import DPMSolverMultistepScheduler

    base = load(first, zero_terminal_snr=True, prediction="v_prediction")
    solver = DPMSolverMultistepScheduler(**sampler_config(base))
    solver.set_timesteps(10)
    assert base.scheduler.alphas_cumprod[-1] == 0
    assert solver.timesteps[0] == 999
    # The solver divides by the signal, so diffusers keeps a trace of it: 2^-24.
    assert solver.alphas_cumprod[-1] <= 2**-24


def test_spacing_is_left_to_the_solver_where_the_files_do_not_state_it(first: Path, load: Load):
    base = load(first)
    assert sampler_config(base)["timestep_spacing"] == "leading"
    del base.architecture.scheduler["timestep_spacing"]
    assert "timestep_spacing" not in sampler_config(base)


def test_noise_belongs_to_a_seed_whatever_the_batch(first: Path, load: Load):
    base = load(first)
    together, alone = initial_noise(base, [7, 8], (32, 48)), initial_noise(base, [8], (32, 48))
    assert together.shape == (2, 4, 8, 12)
    assert torch.equal(together[1:], alone)
    assert not torch.equal(together[0], together[1])


def test_a_picture_does_not_depend_on_the_size_of_the_batch(first: Path, load: Load):
    base = load(first)
    noise = initial_noise(base, [1, 2, 3], (32, 32))
    told: list[tuple[int, int]] = []
    whole = sample(base, PROMPTS, noise, steps=3)
    pieces = sample(
        base, PROMPTS, noise, steps=3, batch_size=2, progress=lambda done, total: told.append((done, total))
    )
    assert (whole.int() - pieces.int()).abs().max() <= 1
    assert told == [(done, 6) for done in range(1, 7)]


def test_sampling_leaves_the_training_flags(first: Path, load: Load):
    base = load(first)
    base.unet.train()
    sample(base, ["a dog"], initial_noise(base, [1], (32, 32)), steps=1)
    assert base.unet.training


def test_pixels_are_rounded_as_diffusers_rounds_them():
    pixels = torch.tensor([-2.0, -1.0, -0.998, 0.0, 0.5, 1.0, 3.0]).view(1, 1, 1, 7).expand(1, 3, 1, 7)
    # 127.5 goes to the even neighbour
    assert to_uint8(pixels)[0, 0, :, 0].tolist() == [0, 0, 0, 128, 191, 255, 255]


def test_the_tiny_pipelines_are_deterministic(first: Path, tmp_path: Path):
    again = make_tiny_pipeline(tmp_path / "again")
    for file in first.rglob("*.safetensors"):
        assert file.read_bytes() == (again / file.relative_to(first)).read_bytes()
