"""Seconds of a LoRA training step: inlay against a plain diffusers loop, in turns in one process.

The peer is written here after the public recipe for LoRA with diffusers and PEFT (``unet.add_adapter``, AdamW, gradient
clipping), which reads, resizes and encodes every picture and its caption at every step. Both train the same layers of
the same model on the same pictures at one batch size; neither draws previews. The model has the structure of Stable
Diffusion 1.x at a fifth of its width, with weights drawn at random: time does not depend on them.

    python benchmarks/tuning_step.py [--resolution 128] [--batch 4] [--rounds 12]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from torch.nn import functional

import inlay.train.loop as loop
from inlay.base.architecture import Architecture
from inlay.base.stable_diffusion import StableDiffusion
from inlay.data.dataset import load_dataset
from inlay.data.settings import DataSettings
from inlay.methods import Lora
from inlay.objective.settings import Objective
from inlay.train.diffusion import Diffusion
from inlay.train.settings import TrainSettings

RANK = 8
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


LENGTH = 77


class LetterTokenizer:
    """Stands for CLIP's tokenizer, whose vocabulary is not here: one token a letter."""

    bos_token_id = eos_token_id = pad_token_id = 0

    def __call__(self, prompts, **_):
        from types import SimpleNamespace

        return SimpleNamespace(input_ids=[[1 + ord(letter) % 900 for letter in prompt] for prompt in prompts])


def make_pictures(folder: Path, count: int) -> None:
    """Save pictures of noise, 512 x 512 pixels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 255, (512, 512, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def make_parts(resolution: int) -> dict[str, torch.nn.Module]:
    """Return U-Net, autoencoder and text encoder at a fifth of Stable Diffusion's width."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=resolution // 8,
        block_out_channels=(64, 128, 256, 256),
        cross_attention_dim=160,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=1000, hidden_size=160, intermediate_size=640, num_hidden_layers=12, num_attention_heads=4
        )
    )
    return {"unet": unet, "vae": vae, "text_encoder": text}


def peer(folder: Path, resolution: int, batch: int):
    """Return a function that does one step the plain way."""
    parts = make_parts(resolution)
    for part in parts.values():
        part.requires_grad_(False)
    unet, vae, text = parts["unet"], parts["vae"], parts["text_encoder"]
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))  # pyright: ignore
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    scheduler = DDPMScheduler(**SCHEDULER)
    files = sorted(folder.glob("*.png"))
    tokenizer = LetterTokenizer()

    def read(path: Path) -> torch.Tensor:
        picture = Image.open(path).convert("RGB").resize((resolution, resolution), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1

    def step() -> None:
        chosen = torch.randint(len(files), (batch,)).tolist()
        pixels = torch.stack([read(files[index]) for index in chosen])
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.sample() * 0.18215  # pyright: ignore
            words = tokenizer(["a photo of sks dog"] * batch).input_ids
            states = text(torch.tensor([row + [0] * (LENGTH - len(row)) for row in words]))[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (batch,))
        output = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, states).sample  # pyright: ignore
        loss = functional.mse_loss(output, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def ours(folder: Path, resolution: int, batch: int, work: Path):
    """Return a function that does one of inlay's steps."""
    from accelerate import Accelerator

    parts = make_parts(resolution)
    vae_config = {"block_out_channels": [32, 64, 128, 128], "latent_channels": 4}
    text_config = {"max_position_embeddings": 77, "hidden_size": 160}
    architecture = Architecture({"sample_size": resolution // 8}, vae_config, text_config, dict(SCHEDULER))
    base = StableDiffusion(architecture, parts, LetterTokenizer(), "benchmark")
    base.part_hashes = {"vae": f"benchmark {resolution}", "text_encoder": "benchmark"}
    attachment = Lora(rank=RANK, targets=tuple(TARGETS)).attach(base.components)
    dataset = load_dataset(DataSettings(source=str(folder), prompt="a photo of sks dog"), resolution)
    diffusion = Diffusion(base, dataset, Objective(), 0, attachment.components)
    diffusion.build_caches(lambda what, done, total: None)
    settings = TrainSettings(steps=10**6, batch_size=batch)
    trainer = loop.Loop(settings, attachment.parameters(), 1e-4, 0, len(dataset), work, Accelerator(cpu=True), "")
    count = iter(range(10**6))

    def losses(step: int, part: slice) -> torch.Tensor:
        return diffusion.losses([dataset.batch(0, step, batch)], step, part)

    def step() -> None:
        trainer.step(next(count), 1e-4, [losses], lambda step, part: [])

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "pictures"
        make_pictures(folder, 5)
        steps = {
            "diffusers loop": peer(folder, args.resolution, args.batch),
            "inlay": ours(folder, args.resolution, args.batch, Path(directory)),
        }
        for step in steps.values():
            step()
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(args.rounds):
            for name, step in steps.items():
                begun = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - begun)
    for name, values in seconds.items():
        low, high = min(values), max(values)
        print(f"{name:16} {statistics.median(values):.3f} s a step (median of {args.rounds}; {low:.3f} to {high:.3f})")
    ratios = sorted(a / b for a, b in zip(seconds["diffusers loop"], seconds["inlay"], strict=True))
    quarter = len(ratios) // 4
    print(
        f"inlay is {statistics.median(ratios):.2f} times as fast (median of paired ratios; middle half "
        f"{ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}) at {args.resolution} px, batch {args.batch}, "
        f"{torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
