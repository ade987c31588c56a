"""Share of a training step that choosing and weighting timesteps takes, for every objective; the aim is below 1 %.

In one process, in turns: a step of LoRA on a small Stable Diffusion from cached latents and text states, the cheapest
there is, and, for each objective, what it does in a step beyond that: draw timesteps, weight the losses, differentiate
the weighting, take the losses in, step what it learns. The plain objective's own share is printed too. What the
multi-task weightings compute anew every so many steps is passes through the model, counted apart: bins x pictures a bin
against `every` x pictures a step.

    python benchmarks/weighting.py [--resolution 128] [--batch 4] [--rounds 40]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from peft import LoraConfig
from tuning_step import RANK, TARGETS, make_parts

from inlay.objective.live import LiveObjective, MultiTaskWeighting
from inlay.objective.loss import loss_per_sample
from inlay.objective.path import Path, scaled_linear_alphas_cumprod
from inlay.objective.settings import Objective
from inlay.objective.timesteps import LogitNormal, LossSecondMoment
from inlay.objective.weighting import UGD, MinSNR, Uncertainty
from inlay.randomness import stream

OBJECTIVES = {
    "plain": Objective(prediction="epsilon"),
    "min_snr": Objective(prediction="epsilon", weighting=MinSNR()),
    "min_snr, logit_normal": Objective(prediction="epsilon", weighting=MinSNR(), timesteps=LogitNormal()),
    "uncertainty": Objective(prediction="epsilon", weighting=Uncertainty()),
    "loss_second_moment": Objective(prediction="epsilon", timesteps=LossSecondMoment()),
    "ugd": Objective(prediction="epsilon", weighting=UGD()),
}


def model_step(resolution: int, batch: int) -> Callable[[], None]:
    """Return a function that does the model's part of a training step."""
    unet = make_parts(resolution)["unet"].requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))  # pyright: ignore
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    side = resolution // 8
    latents, noise = torch.randn(2, batch, 4, side, side)
    states = torch.randn(batch, 77, 160)
    path = Path.from_alphas_cumprod(scaled_linear_alphas_cumprod())

    def step() -> None:
        timesteps = torch.randint(1000, (batch,))
        output = unet(path.add_noise(latents, noise, timesteps), timesteps, states).sample  # pyright: ignore
        loss_per_sample(output, noise, torch.ones(batch)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def weighting(objective: Objective, batch: int) -> Callable[[], None]:
    """Return a function that does what an objective does in a step beside the model."""
    live = LiveObjective(objective, Path.from_alphas_cumprod(scaled_linear_alphas_cumprod()), seed=0)
    if live.history is not None:  # what it costs once it knows the losses
        for _ in range(10):
            live.history.observe(range(1000), np.random.default_rng(0).random(1000).tolist())
    errors = torch.rand(batch, requires_grad=True)
    count = iter(range(10**9))

    def step() -> None:
        timesteps = live.draw(stream(0, "timesteps", next(count)), batch)
        weights, offset = live.terms(timesteps)
        losses = errors * weights if offset is None else errors * weights + offset
        live.note(timesteps, losses)
        losses.mean().backward()
        if live.optimizer is not None:
            live.optimizer.step()
            live.optimizer.zero_grad()
        live.observe(lambda rows: rows)
        errors.grad = None

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    whole = model_step(args.resolution, args.batch)
    steps = {name: weighting(objective, args.batch) for name, objective in OBJECTIVES.items()}
    for step in (whole, *steps.values()):
        step()
    seconds: dict[str, list[float]] = {name: [] for name in ("whole", *steps)}
    for _ in range(args.rounds):
        for name, step in {"whole": whole, **steps}.items():
            begun = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begun)
    middle = statistics.median(seconds["whole"])
    print(
        f"a training step takes {middle:.3f} s (median of {args.rounds}) at {args.resolution} px, batch {args.batch}, "
        f"{torch.get_num_threads()} threads"
    )
    for name, step_seconds in seconds.items():
        if name == "whole":
            continue
        shares = sorted(100 * a / b for a, b in zip(step_seconds, seconds["whole"], strict=True))
        quarter = len(shares) // 4
        print(
            f"{name:24} {1e6 * statistics.median(step_seconds):6.0f} us, {statistics.median(shares):.3f} % of a step "
            f"(median of paired ratios; middle half {shares[quarter]:.3f} to {shares[-1 - quarter]:.3f})"
        )
    solver = MultiTaskWeighting(UGD(), 1000)
    gradients = 0.3 + torch.randn(UGD().bins, 1000)
    begun = time.perf_counter()
    solver.solve(gradients @ gradients.T)
    solved = time.perf_counter() - begun
    more = 100 * UGD().bins * UGD().samples / UGD().every
    print(
        f"ugd, every {UGD().every} steps beside that: {solved:.2f} s to solve, and {more / args.batch:.1f} % more "
        f"pictures through the model at batch {args.batch} ({more / 64:.2f} % at batch 64)"
    )


if __name__ == "__main__":
    main()
