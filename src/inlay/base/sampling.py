"""Drawing pictures with a base: DPM-Solver++ with classifier-free guidance.

The arithmetic is that of diffusers' ``StableDiffusionPipeline`` with ``DPMSolverMultistepScheduler``, so the same
noise gives the same picture there; without importing the pipeline, and with text encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inlay.randomness import stream

if TYPE_CHECKING:
    from inlay.base.stable_diffusion import StableDiffusion


PIXELS_DECODED = 2**18
"""Pixels that the autoencoder decodes in one call: one picture of 512 x 512. It works in float32 at the pictures' own
size, and would else need more memory than the denoiser, which the pictures pass together."""


def decoded_together(size: tuple[int, int]) -> int:
    """Return how many pictures of a size (height, width) in pixels are decoded in one call."""
    return max(1, PIXELS_DECODED // (size[0] * size[1]))


def sampler_config(base: StableDiffusion) -> dict:
    """Return the configuration of the DPM-Solver++ scheduler (order 2, arXiv 2211.01095) that belongs to a base.

    It is what ``DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)`` takes over in diffusers.
    """
    keep = ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "trained_betas"]
    known = {key: base.scheduler.config[key] for key in keep}
    known["rescale_betas_zero_snr"] = bool(base.scheduler.config.get("rescale_betas_zero_snr", False))
    # Stated in the base's files or left to the solver, whose default is not that of the training scheduler.
    stated = base.architecture.scheduler
    known |= {key: stated[key] for key in ("timestep_spacing", "steps_offset") if key in stated}
    return known


def initial_noise(base: StableDiffusion, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Return one draw of noise a seed, float32 [B, C, h, w] on the CPU, whatever the batch.

    Args:
        base: gives channels and scale.
        seeds: one integer a picture.
        size: (height, width) in pixels.
    """
    shape = (base.unet.config.in_channels, *(side // base.architecture.downscale for side in size))
    return torch.stack([torch.randn(shape, generator=stream(seed, "initial noise")) for seed in seeds])


@torch.no_grad()
def sample(
    base: StableDiffusion,
    prompts: Sequence[str],
    noise: Tensor,
    steps: int = 25,
    guidance: float = 7.0,
    negative_prompt: str = "",
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw one picture a prompt.

    Args:
        base: with whatever methods are attached to it.
        prompts: B prompts.
        noise: [B, C, h, w], from :func:`initial_noise`.
        steps: calls of the denoiser, each for the prompt and the negative prompt together.
        guidance: scale of classifier-free guidance (arXiv 2207.12598, with 1 for none).
        negative_prompt: what guidance leads away from.
        batch_size: pictures at a time.
        progress: told (denoiser calls done, in all).

    Returns:
        uint8 [B, H, W, 3] on the CPU.
    """
    from diffusers import DPMSolverMultistepScheduler

    pictures = []
    chunks = [range(first, min(first + batch_size, len(prompts))) for first in range(0, len(prompts), batch_size)]
    with base.evaluating():
        empty = base.encode_text([negative_prompt]) if guidance != 1 else None
        for number, chunk in enumerate(chunks):
            scheduler = DPMSolverMultistepScheduler(**sampler_config(base))
            scheduler.set_timesteps(steps, device=base.device)
            states = base.encode_text([prompts[index] for index in chunk])
            if empty is not None:
                states = torch.cat([empty.expand_as(states), states])
            latents = noise[list(chunk)].to(base.device) * scheduler.init_noise_sigma
            for call, timestep in enumerate(scheduler.timesteps):
                doubled = latents if empty is None else torch.cat([latents, latents])
                inputs = scheduler.scale_model_input(doubled, timestep)
                output = base.predict(inputs, timestep.expand(len(inputs)), states).float()
                if empty is not None:
                    without, under = output.chunk(2)
                    output = without + guidance * (under - without)
                latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
                if progress is not None:
                    progress(number * steps + call + 1, len(chunks) * steps)
            height, width = (side * base.architecture.downscale for side in latents.shape[-2:])
            parts = latents.split(decoded_together((height, width)))
            pictures += [to_uint8(base.decode(part)) for part in parts]
    return torch.cat(pictures)


def to_uint8(pixels: Tensor) -> Tensor:
    """Pixels [B, 3, H, W] in [-1, 1] => uint8 [B, H, W, 3] on the CPU, as diffusers rounds them."""
    return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
