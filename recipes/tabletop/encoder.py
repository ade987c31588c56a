"""Sets the encoder of the autoencoder in closed form: principal components of 8 x 8 pixel patches.

Training an encoder by gradient takes hours of a CPU; this one takes seconds, and loses little on pictures as smooth
as the world's. Its latents are linear in the pixels, one patch each, ordered from the mean colour to fine detail. The
weights are those of an ordinary `AutoencoderKL`, so that a longer training can go on from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL

TAME = 0.5
"""Power of a component's standard deviation that its latent channel keeps: 1 is plain PCA, 0 is whitening."""
PEDESTAL = 32.0
"""Size of the constants that keep a group norm from scaling with the picture, in units of the signal's spread."""


def halve(fields: np.ndarray) -> np.ndarray:
    """Return fields [N, H, W, C] as [N, H / 2, W / 2, 4 C], the four neighbours (row, column) side by side."""
    count, height, width, channels = fields.shape
    split = fields.reshape(count, height // 2, 2, width // 2, 2, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // 2, width // 2, 4 * channels)


def components(fields: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first principal axes [C, keep] of fields [N, H, W, C], widest first, and their spreads [keep]."""
    covariance = np.cov(fields.reshape(-1, fields.shape[-1]).astype(np.float64), rowvar=False)
    values, vectors = np.linalg.eigh(covariance)
    return vectors[:, ::-1][:, :keep], np.sqrt(np.maximum(values[::-1][:keep], 0.0))


def _stride(conv: torch.nn.Conv2d, axes: np.ndarray) -> None:
    """Make a 3 x 3 convolution of stride 2 (padded below and on the right) apply axes [4 C, K] to 2 x 2 neighbours."""
    given, kept = axes.shape[0] // 4, axes.shape[1]
    conv.weight.zero_()
    conv.bias.zero_()
    taps = torch.from_numpy(axes.T.reshape(kept, 2, 2, given).transpose(0, 3, 1, 2).copy()).float()
    conv.weight[:kept, :given, :2, :2] = taps


def _widen(conv: torch.nn.Conv2d) -> None:
    """Make a 1 x 1 convolution copy its input to its first channels."""
    conv.weight.zero_()
    conv.bias.zero_()
    for channel in range(conv.in_channels):
        conv.weight[channel, channel] = 1.0


@dataclass(frozen=True)
class Code:
    """The linear code: axes of three scales (each [4 C, K]), then every kept component's mean, spread and scale."""

    axes: tuple[np.ndarray, ...]
    centre: np.ndarray
    spreads: np.ndarray
    scale: np.ndarray

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the latents [N, C, 8, 8] of uint8 images [N, 64, 64, 3]."""
        fields = images.astype(np.float32) / 127.5 - 1
        for axes in self.axes:
            fields = halve(fields) @ axes
        return ((fields - self.centre) * self.scale).transpose(0, 3, 1, 2)


def fit_code(images: np.ndarray, channels: int) -> tuple[Code, dict]:
    """Return the code of so many channels for uint8 images [N, 64, 64, 3], and what it loses.

    The latents have the standard deviation 1 over all channels; a channel's own is its component's to the power `TAME`.
    """
    fields = images.astype(np.float32) / 127.5 - 1
    found = []
    for keep in (12, 32, 64):
        fields = halve(fields)
        axes, _ = components(fields, keep)
        found.append(axes.astype(np.float32))
        fields = fields @ found[-1]
    found[-1] = found[-1][:, :channels]
    kept = fields[..., :channels].reshape(-1, channels)
    spreads = kept.std(0)
    scale = spreads ** (TAME - 1) / np.sqrt((spreads ** (2 * TAME)).mean())
    # The patch's energy about its mean, split over the 192 numbers: what the code keeps is the components' share.
    patches = halve(halve(halve(images.astype(np.float32) / 127.5 - 1))).reshape(-1, 192)
    lost = patches.var(0).sum() - (spreads**2).sum()
    facts = {
        "psnr_of_linear_decoding_of_mean_error": round(float(-10 * np.log10(lost / 192 / 4)), 2),
        "component_spreads": [round(float(value), 4) for value in spreads],
    }
    return Code(tuple(found), kept.mean(0), spreads, scale), facts


@torch.no_grad()
def set_encoder(model: AutoencoderKL, code: Code, spread: float) -> None:
    """Write a code into the encoder's weights; the decoder stays as it is.

    Residual branches and attention must end in zeros, so that the encoder is its skip path: the convolutions of stride
    2. The last group norm would divide by the picture's own contrast: pairs of constants in every group make the
    divisor nearly constant. The unit after it is undone by pairs of opposite channels: silu(x) - silu(-x) = x.

    Args:
        model: the autoencoder, block_out_channels (16, 32, 64, 128).
        code: what the mean of the posterior shall be.
        spread: standard deviation of the posterior.
    """
    encoder, latents, groups = model.encoder, model.config.latent_channels, model.config.norm_num_groups
    encoder.conv_in.weight.zero_()
    encoder.conv_in.bias.zero_()
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1.0
    for level, axes in enumerate(code.axes):
        _stride(encoder.down_blocks[level].downsamplers[0].conv, axes)
        _widen(encoder.down_blocks[level + 1].resnets[0].conv_shortcut)
    # The last shortcut lays out the 128 channels: each group two constants, then pairs of a component and its opposite.
    shortcut = encoder.down_blocks[3].resnets[0].conv_shortcut
    width = shortcut.out_channels // groups
    shortcut.weight.zero_()
    shortcut.bias.zero_()
    shortcut.bias[0::width], shortcut.bias[1::width] = PEDESTAL, -PEDESTAL
    slots = [group * width + place for group in range(groups) for place in range(2, width)]
    spreads = code.spreads
    used = torch.zeros(groups)
    for k in range(latents):
        for sign, slot in ((1.0, slots[2 * k]), (-1.0, slots[2 * k + 1])):
            shortcut.weight[slot, k] = sign / float(spreads[k])
            shortcut.bias[slot] = -sign * float(code.centre[k] / spreads[k])
            used[slot // width] += 1
    divisors = torch.sqrt((2 * PEDESTAL**2 + used) / width)
    encoder.conv_norm_out.weight.fill_(1.0)
    encoder.conv_norm_out.bias.zero_()
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    for k in range(latents):
        for sign, slot in ((1.0, slots[2 * k]), (-1.0, slots[2 * k + 1])):
            factor = float(code.scale[k] * spreads[k] * divisors[slot // width])
            encoder.conv_out.weight[k, slot, 1, 1] = sign * factor
    encoder.conv_out.bias[latents:] = 2 * math.log(spread)
    model.quant_conv.weight.copy_(torch.eye(2 * latents)[:, :, None, None])
    model.quant_conv.bias.zero_()
