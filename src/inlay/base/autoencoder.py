"""Pixels to latents and back by a frozen autoencoder, in full precision always.

Half precision would cost quality, and latents are encoded once. Latents are already times the scaling factor.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

PIXELS_TOGETHER = 2**18
"""Pixels that the autoencoder encodes or decodes in one call: one picture of 512 x 512, which takes 0.6 GiB to encode.
It works in float32 at the pictures' own size, and would else need more memory than the denoiser."""


def coded_together(size: tuple[int, int]) -> int:
    """Return how many pictures of a size (height, width) in pixels are encoded or decoded in one call."""
    return max(1, PIXELS_TOGETHER // (size[0] * size[1]))


def scaling_factor(vae: Any) -> float:
    """Return the factor from the autoencoder's latents to the denoiser's."""
    return float(vae.config.scaling_factor)


@torch.no_grad()
def encode(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [B, 3, H, W] => mean and standard deviation of the posterior over latents, float32 [B, C, h, w]."""
    reference = next(vae.parameters())
    with _full_precision(reference.device):
        posterior = vae.encode(pixels.to(reference.device, reference.dtype)).latent_dist
    return posterior.mean.float() * scaling_factor(vae), posterior.std.float() * scaling_factor(vae)


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] => pixels float32 [B, 3, H, W] in [-1, 1]."""
    reference = next(vae.parameters())
    scaled = latents.to(reference.device, reference.dtype) / scaling_factor(vae)
    with _full_precision(reference.device):
        return vae.decode(scaled, return_dict=False)[0].float().clamp(-1, 1)


def encoder_hash(vae: Any) -> str:
    """Return the SHA-256 of all that :func:`encode` depends on.

    The decoder is left out: a better one does not make latents stale.
    """
    total = hashlib.sha256(f"{scaling_factor(vae)}".encode())
    for name, tensor in sorted(vae.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.")):
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast, also for the meta device, which knows none."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
