"""The learned logarithm of the loss at each noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inlay.objective.path import Path
from inlay.randomness import stream

LEAST_SNR = 1e-8
"""Stands for a signal-to-noise ratio of 0, whose logarithm the features could not hold. Any value below the path's
others would do: u is learned there like everywhere."""


class LogVariance(nn.Module):
    """u(t): Fourier features of ln(sigma) / 4, summed with learned weights (Karras et al. 2024, arXiv 2312.02696).

    sigma is the noise level in units of the signal, 1 / sqrt(S). u is 0 at the start. Unlike there, the weights are
    not kept at norm 1: u may take any value, which it must where losses are far from 1.
    """

    def __init__(self, path: Path, channels: int, seed: int):
        """Draw the features.

        Args:
            path: gives the noise levels.
            channels: how many features.
            seed: the run's seed.
        """
        super().__init__()
        generator = stream(seed, "uncertainty features")
        frequencies = 2 * math.pi * torch.randn(channels, generator=generator, dtype=torch.float64)
        phases = 2 * math.pi * torch.rand(channels, generator=generator, dtype=torch.float64)
        log_sigma = -path.snr(torch.arange(path.timesteps)).clamp(min=LEAST_SNR).log() / 2
        features = (log_sigma[:, None] / 4 * frequencies + phases).cos() * math.sqrt(2 / channels)
        self.features: Tensor
        """float32 [T, channels], each row of norm about 1."""
        # Not saved: they follow from the path and the seed.
        self.register_buffer("features", features.float(), persistent=False)
        self.linear = nn.Linear(channels, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, t: Tensor) -> Tensor:
        """Return u at the timesteps ``t``, int64 [B] => float32 [B]."""
        # As a sum, not a matrix product, so that autocast does not lower its precision.
        weighted = self.features[t.to(self.features.device)] * self.linear.weight
        return weighted.sum(1) + self.linear.bias
