"""Drawing pictures with a base: a solver with classifier-free guidance.

Without another solver the arithmetic is that of diffusers' ``StableDiffusionPipeline`` with
``DPMSolverMultistepScheduler``, so the same noise gives the same picture there; without importing the pipeline, and
with text encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from inlay.base.architecture import make_scheduler
from inlay.base.autoencoder import coded_together
from inlay.base.contract import Base
from inlay.randomness import stream

Predict = Callable[[Tensor, Tensor], Tensor]
"""Noisy latents [B, C, h, w] and one timestep, int64 [] => the guided prediction, float32 [B, C, h, w]."""


class Solver(Protocol):
    """Integrates from noise to a picture; its settings are its own."""

    @property
    def calls(self) -> int:
        """How often it asks for a prediction."""
        ...

    def __call__(self, predict: Predict, noise: Tensor, tell: Callable[[], None]) -> Tensor:
        """Return latents [B, C, h, w] for noise of the same shape and variance 1; ``tell`` is called at every call."""
        ...


class PipelineSolver:
    """DPM-Solver++ as diffusers' pipelines compute it (order 2, arXiv 2211.01095)."""

    def __init__(self, base: Base, steps: int):
        """Take over the base's schedule.

        Args:
            base: of a path with a schedule of alphas.
            steps: calls of the denoiser.
        """
        from diffusers import DPMSolverMultistepScheduler

        self.scheduler: Any = DPMSolverMultistepScheduler(**sampler_config(base))
        self.calls = steps

    def __call__(self, predict: Predict, noise: Tensor, tell: Callable[[], None]) -> Tensor:
        scheduler = self.scheduler
        scheduler.set_timesteps(self.calls, device=noise.device)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            output = predict(scheduler.scale_model_input(latents, timestep), timestep)
            latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
            tell()
        return latents


def sampler_config(base: Base) -> dict:
    """Return the configuration of the DPM-Solver++ scheduler (order 2, arXiv 2211.01095) that belongs to a base.

    It is what ``DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)`` takes over in diffusers.
    """
    keep = ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "trained_betas"]
    config = make_scheduler(dict(base.architecture.scheduler)).config
    known = {key: config[key] for key in keep}
    known["rescale_betas_zero_snr"] = bool(config.get("rescale_betas_zero_snr", False))
    # Stated in the base's files or left to the solver, whose default is not that of the training scheduler.
    stated = base.architecture.scheduler
    known |= {key: stated[key] for key in ("timestep_spacing", "steps_offset") if key in stated}
    return known


def initial_noise(base: Base, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Return one draw of noise a seed, float32 [B, C, h, w] on the CPU, whatever the batch.

    Args:
        base: gives channels and scale.
        seeds: one integer a picture.
        size: (height, width) in pixels.
    """
    shape = (base.architecture.channels, *(side // base.architecture.downscale for side in size))
    return torch.stack([torch.randn(shape, generator=stream(seed, "initial noise")) for seed in seeds])


@torch.no_grad()
def sample(
    base: Base,
    prompts: Sequence[str],
    noise: Tensor,
    steps: int = 25,
    guidance: float = 7.0,
    negative_prompt: str = "",
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    solver: Solver | None = None,
) -> Tensor:
    """Draw one picture a prompt.

    Args:
        base: with whatever methods are attached to it.
        prompts: B prompts: texts, names of classes, or for an unconditional model empty ones.
        noise: [B, C, h, w], from :func:`initial_noise`.
        steps: calls of the denoiser, each for the prompt and the negative prompt together; unless ``solver`` is given.
        guidance: scale of classifier-free guidance (arXiv 2207.12598, with 1 for none).
        negative_prompt: what guidance leads away from.
        batch_size: pictures at a time.
        progress: told (denoiser calls done, in all).
        solver: another one than :class:`PipelineSolver`.

    Returns:
        uint8 [B, H, W, 3] on the CPU.
    """
    solver = solver or PipelineSolver(base, steps)
    pictures = []
    chunks = [range(first, min(first + batch_size, len(prompts))) for first in range(0, len(prompts), batch_size)]
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(chunks) * solver.calls)

    with base.evaluating():
        guided = guidance != 1 and base.architecture.prompt_ids > 0
        empty = base.encode_text([negative_prompt]) if guided else None
        for chunk in chunks:
            states = base.encode_text([prompts[index] for index in chunk])
            if empty is not None:
                states = torch.cat([empty.expand_as(states), states])

            def predict(latents: Tensor, timestep: Tensor, states: Tensor = states) -> Tensor:
                doubled = latents if empty is None else torch.cat([latents, latents])
                output = base.predict(doubled, timestep.expand(len(doubled)), states).float()
                if empty is not None:
                    without, under = output.chunk(2)
                    output = without + guidance * (under - without)
                return output

            latents = solver(predict, noise[list(chunk)].to(base.device), tell)
            height, width = (side * base.architecture.downscale for side in latents.shape[-2:])
            parts = latents.split(coded_together((height, width)))
            pictures += [to_uint8(base.decode(part)) for part in parts]
    return torch.cat(pictures)


def to_uint8(pixels: Tensor) -> Tensor:
    """Pixels [B, 3, H, W] in [-1, 1] => uint8 [B, H, W, 3] on the CPU, as diffusers rounds them."""
    return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
