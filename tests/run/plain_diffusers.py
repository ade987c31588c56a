"""What diffusers alone draws, without inlay in the way, beside what inlay draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from inlay.base.sampling import initial_noise
from inlay.run.draw import draw, load_target


def check_same_picture(base: Path, run: Path, prompt: str, load: Callable[[Any], None]) -> None:
    """Assert that diffusers draws a run's picture to the bit once it has loaded the result, and another one before.

    Args:
        base: directory of the Stable Diffusion pipeline that was tuned.
        run: the run directory.
        prompt: as a user writes it.
        load: loads the result into the pipeline that it is given.
    """
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    tuned = load_target(str(run))
    [ours] = draw(tuned, [prompt], pictures=1, seed=3, steps=4)
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    noise = initial_noise(tuned, [3], (32, 32))

    def theirs() -> Any:
        found = pipeline(prompt, latents=noise, num_inference_steps=4, guidance_scale=7.0, output_type="np").images[0]
        return (found * 255).round().astype("uint8")

    before = theirs()
    load(pipeline)
    after = theirs()
    assert (after == ours.pixels).all()
    assert (before != after).any()
