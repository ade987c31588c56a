"""Trains a classifier of noised latents: it names what a one-object picture shows, at every noise level.

`teach.py` has the denoiser learn from it, as guidance by a classifier does while sampling (Dhariwal and Nichol 2021,
section 4). It does not ship, and shares neither weights nor inputs with the judge, which reads pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from classifier import ATTRIBUTES, alone
from clip import shifted
from diffusers import AutoencoderKL, DDIMScheduler
from export import BASE
from pictures import BUILD, TEST, pixels
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from training import Training, add_training, bf16_where_fast

from inlay.objective.path import Path as NoisePath
from inlay.randomness import stream

SEED = 0
TAUGHT = ("class", "colour")
LAYERS = ((3, 32, 2), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 192, 2), (192, 192, 1))
"""Channels before and after, and stride."""
SEEN = (2, 4, 6)
"""After which of them hidden values are compared: the last of their size each, 16, 8 and 4 a side."""
TIMESTEPS = (0, 200, 400, 500, 600, 700, 800, 900)
"""Where its accuracy is measured."""
PATCH = 8

Seen = tuple[dict[str, torch.Tensor], list[torch.Tensor]]
"""What the classifier says: logits [B, values] of its attributes, and hidden values."""


class NoisyClassifier(nn.Module):
    """Names class and colour from noised latents [B, C, 8, 8] and the logarithm of their signal-to-noise ratio [B].

    Latents of this base are linear in 8 x 8 pixels each, and convolutions learn shapes sooner from pixels: they are
    decoded by a fixed linear map first.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("decoding", torch.zeros(channels, 3 * PATCH**2))
        self.time = nn.Sequential(nn.Linear(32, 128), nn.SiLU())
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride, 1) for a, b, stride in LAYERS)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _, width, _ in LAYERS)
        self.films = nn.ModuleList(nn.Linear(128, 2 * width) for _, width, _ in LAYERS)
        self.heads = nn.ModuleDict({name: nn.Linear(2 * LAYERS[-1][1], len(ATTRIBUTES[name])) for name in TAUGHT})

    @torch.no_grad()
    def fit_decoding(self, latents: torch.Tensor, images: torch.Tensor) -> None:
        """Set the linear map to what decodes latents [N, C, 8, 8] of images [N, 3, 64, 64] with the least squares."""
        patches = functional.unfold(images, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
        known = latents.permute(0, 2, 3, 1).flatten(0, 2)
        known = torch.cat([known, torch.ones_like(known[:, :1])], 1)
        # In double precision: the last bits of single precision differ from one process to the next.
        self.decoding.copy_(torch.linalg.lstsq(known.double(), patches.double()).solution[:-1])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return latents [B, C, 8, 8] as pictures [B, 3, 64, 64] about the mean one."""
        patches = latents.permute(0, 2, 3, 1).flatten(1, 2) @ self.decoding
        return functional.fold(patches.transpose(1, 2), 8 * PATCH, PATCH, stride=PATCH)

    def read(self, images: torch.Tensor, log_snr: torch.Tensor) -> Seen:
        """Return logits [B, values] of every attribute for decoded pictures, and the hidden values after `SEEN`."""
        frequencies = 0.1 * torch.exp(torch.linspace(0, 5, 16, device=images.device))
        angles = log_snr[:, None] * frequencies
        level = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        hidden = images.contiguous(memory_format=torch.channels_last)
        seen = []
        for place, ((_, _, stride), conv, norm, film) in enumerate(
            zip(LAYERS, self.convs, self.norms, self.films, strict=True)
        ):
            scale, offset = film(level)[:, :, None, None].chunk(2, 1)
            found = functional.silu(norm(conv(hidden)) * (1 + scale) + offset)
            hidden = hidden + found if stride == 1 else found
            if place in SEEN:
                seen.append(hidden)
        pooled = torch.cat([hidden.mean((2, 3)), hidden.amax((2, 3))], 1)
        return {name: head(pooled) for name, head in self.heads.items()}, seen

    def forward(self, latents: torch.Tensor, log_snr: torch.Tensor) -> Seen:
        """Return logits [B, values] of class and colour, and hidden values."""
        return self.read(self.decode(latents), log_snr)


def load(folder: Path) -> NoisyClassifier:
    """Return the trained classifier of a folder."""
    state = load_file(folder / "model.safetensors")
    model = NoisyClassifier(len(state["decoding"]))
    model.load_state_dict(state)
    return model.eval()


def shown(model: NoisyClassifier, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, path: NoisePath) -> Seen:
    """Return what the classifier says of clean latents [B, C, 8, 8] noised to timesteps [B]."""
    return model(path.add_noise(latents, noise, t), log_snr(path, t).to(latents.device))


def log_snr(path: NoisePath, t: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of the signal-to-noise ratios at timesteps [B], in single precision."""
    return path.snr(t).log().float()


def noise_path(base: Path) -> NoisePath:
    """Return the path that the base was trained on."""
    return NoisePath.from_alphas_cumprod(DDIMScheduler.from_pretrained(base / "scheduler").alphas_cumprod)


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray) -> torch.Tensor:
    """Return the means of the latents [N, C, 8, 8] of uint8 images [N, 64, 64, 3], in half precision."""
    found = []
    for begin in range(0, len(images), 256):
        posterior = vae.encode(pixels(images[begin : begin + 256], vae.device)).latent_dist
        found.append((posterior.mean * vae.config.scaling_factor).half().cpu())
    return torch.cat(found)


@torch.inference_mode()
def accuracy(model: NoisyClassifier, latents: torch.Tensor, expected: torch.Tensor, path: NoisePath) -> dict:
    """Return the share of right names of every attribute at `TIMESTEPS`."""
    model.eval()
    device = next(model.parameters()).device
    found: dict = {name: {} for name in TAUGHT}
    for timestep in TIMESTEPS:
        noise = torch.randn(latents.shape, generator=stream(SEED, "noisy-classifier/test", timestep))
        right = dict.fromkeys(TAUGHT, 0)
        for k in range(0, len(latents), 256):
            part = latents[k : k + 256].float().to(device)
            t = torch.full((len(part),), timestep)
            for name, logits in shown(model, part, noise[k : k + 256].to(device), t, path)[0].items():
                wanted = expected[k : k + 256, TAUGHT.index(name)]
                right[name] += int((logits.argmax(1).cpu() == wanted).sum())
        for name in TAUGHT:
            found[name][str(timestep)] = round(right[name] / len(latents), 4)
    return found


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_training(parser, 2400, batch=128, rate=2e-3)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--out", type=Path, default=BUILD / "noisy-classifier")
    parser.add_argument("--results", type=Path, default=Path("recipes/tabletop/results/noisy-classifier.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    device = torch.device(args.device)
    images, values = alone("train", args.images)
    vae = AutoencoderKL.from_pretrained(args.base / "vae", dtype=torch.float32).to(device)
    latents, values = encode(vae, images), values[:, : len(TAUGHT)]
    test, expected = alone("test", TEST)
    path = noise_path(args.base)
    model = NoisyClassifier(latents.shape[1])
    model.fit_decoding(latents[:2000].float(), pixels(images[:2000]))
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05, fused=True)
    training = Training(
        args,
        optimizer,
        purpose="noisy-classifier/order",
        count=len(latents),
        warmup=100,
        trace=BUILD / "noisy-classifier-trace.json",
        every=100,
    )
    for step, chosen in training:
        generator = stream(SEED, "noisy-classifier/noise", step)
        # Little can be named where noise is strong: those levels come up less often.
        t = (path.timesteps * torch.rand(len(chosen), generator=generator) ** 1.25).long()
        noise = torch.randn(latents[chosen].shape, generator=generator)
        seen = model.decode(path.add_noise(latents[chosen].float(), noise, t).to(device))
        mirrored = (torch.rand(len(chosen), 1, 1, 1, generator=generator) < 0.5).to(device)
        seen = shifted(torch.where(mirrored, seen.flip(3), seen), generator)
        with bf16_where_fast(device):
            logits, _ = model.read(seen, log_snr(path, t).to(device))
        wanted = values[chosen].to(device)
        losses = {name: functional.cross_entropy(logits[name].float(), wanted[:, k]) for k, name in enumerate(TAUGHT)}
        # Colours are learnt sooner than shapes.
        value = losses["class"] + 0.5 * losses["colour"]
        training.learn(value, loss=value, **losses)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, args.out / "model.safetensors")
    summary = {
        **training.summary(),
        "pictures": len(latents),
        "parameters": sum(p.numel() for p in model.parameters()),
        "test_pictures": len(test),
        "accuracy_by_timestep": accuracy(model, encode(vae, test), expected, path),
    }
    args.results.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
