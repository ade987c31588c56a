"""Stable Diffusion XL from the command line: tune both text encoders and the denoiser, and use the file elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inlay.base.sampling import initial_noise, sample
from inlay.run.directory import load_run
from tests.tiny import RESOLUTION, make_tiny_xl_pipeline


def inlay(*arguments: object) -> str:
    command = [str(Path(sys.executable).with_name("inlay")), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_tune_and_use_the_lora_in_diffusers(photos: Path, tmp_path: Path):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline

    base = make_tiny_xl_pipeline(tmp_path / "base")
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        f"""
base: {base}
data: {{source: {photos}, prompt: a photo of sks dog}}
method: {{name: lora, text_encoder: true, rank: 4}}
train: {{steps: 4, batch_size: 2, learning_rate: 1e-2}}
preview: {{pictures: 1, steps: 2}}
output: {tmp_path / "run"}
"""
    )
    plan = json.loads(inlay("plan", run_file, "--json"))
    inlay("tune", run_file)
    tuned, attachments = load_run(tmp_path / "run")
    assert plan["trainable_parameters"] == sum(p.numel() for p in attachments[0].parameters().values())
    parts = {name.partition(".")[0] for name in attachments[0].state()}
    assert parts == {"unet", "text_encoder", "text_encoder_2"}
    noise = initial_noise(tuned, [5], (RESOLUTION, RESOLUTION))
    prompt = "a photo of sks dog"
    ours = sample(tuned, [prompt], noise, 4, 3.0)

    inlay("export", tmp_path / "run", "--format", "diffusers", "--output", tmp_path / "lora.safetensors")
    pipe = StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)

    def drawn() -> torch.Tensor:
        side = {"height": RESOLUTION, "width": RESOLUTION}
        found = pipe(prompt, latents=noise, num_inference_steps=4, guidance_scale=3.0, output_type="np", **side).images
        return torch.from_numpy((found * 255).round()).to(torch.uint8)

    before = drawn()
    pipe.load_lora_weights(str(tmp_path / "lora.safetensors"))
    assert (drawn().int() - ours.int()).abs().max() <= 1
    assert (before.int() - ours.int()).abs().max() > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "adapter", "prefix", "bitfit", "hypernetwork"])
def test_plans_of_the_published_size(name: str, tmp_path: Path):
    run_file = tmp_path / "run.yaml"
    run_file.write_text(f"base: sdxl\ndata: {tmp_path}/none\nmethod: {name}\ntrain: {{steps: 10, batch_size: 1}}\n")
    plan = json.loads(inlay("plan", run_file, "--json"))
    assert plan["part_parameters"]["unet"] >= 2_567_463_684
    assert 0 < plan["trainable_parameters"] < 0.05 * plan["base_parameters"]
