"""Noise paths: how a clean sample turns into noise, and how predictions convert into each other.

Shapes: B samples in a batch, T timesteps on the path; samples are [B, ...]; ``t`` is int64 [B] in [0, T), 0 the
cleanest. Tables are float64 on the CPU; coefficients are cast once, to the dtype and device of the samples.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from inlay.errors import ConfigError
from inlay.objective.prediction import Prediction


class Path:
    """A discrete path noisy = alpha_t * clean + sigma_t * noise with its own velocity target.

    Build one with :meth:`from_alphas_cumprod` or :meth:`rectified_flow`. Instances do not change, so weightings may
    cache what they compute for one.
    """

    def __init__(self, alpha: Tensor, sigma: Tensor, velocity: Literal["v_prediction", "flow"]):
        """Keep the tables.

        Args:
            alpha: float64 [T], factor of the clean sample, in [0, 1).
            sigma: float64 [T], factor of the noise, in (0, 1].
            velocity: which velocity belongs to the path. Either is c * noise - d * clean, with (c, d) = (alpha, sigma)
                for ``v_prediction`` and (1, 1) for ``flow``, and on both paths alpha * c + sigma * d = 1.
        """
        self.velocity: Prediction = velocity
        self._alpha, self._sigma = alpha, sigma
        if velocity == "v_prediction":
            self._velocity_noise, self._velocity_clean = alpha, sigma
        else:
            self._velocity_noise = self._velocity_clean = torch.ones_like(alpha)

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Tensor) -> Path:
        """Return the variance-preserving path with alpha_t^2 = ``alphas_cumprod[t]`` and sigma_t^2 = 1 - alpha_t^2.

        Args:
            alphas_cumprod: [T], as diffusers' schedulers hold it; not increasing, in [0, 1). A last value of 0 is
                zero terminal SNR.

        Raises:
            ConfigError: the values cannot be such a schedule.
        """
        table = alphas_cumprod.detach().to("cpu", torch.float64)
        if table.ndim != 1 or not len(table) or not bool(((table >= 0) & (table < 1)).all()):
            raise ConfigError(
                f"alphas_cumprod must be one row of numbers in [0, 1); got shape {tuple(table.shape)}"
                + (f" with values from {table.min():.6g} to {table.max():.6g}" if table.numel() else "")
            )
        if bool((table.diff() > 0).any()):
            raise ConfigError("alphas_cumprod must not increase with the timestep: timestep 0 is the cleanest")
        return cls(table.sqrt(), (1 - table).sqrt(), "v_prediction")

    @classmethod
    def rectified_flow(cls, timesteps: int = 1000) -> Path:
        """Return the straight path noisy = (1 - s) * clean + s * noise at the levels s = (t + 1) / T, t = 0 ... T - 1.

        The level 0 is left out (nothing is noisy there); the last level is pure noise.
        """
        level = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
        return cls(1 - level, level, "flow")

    @property
    def timesteps(self) -> int:
        """T, the number of timesteps."""
        return len(self._alpha)

    def alpha(self, t: Tensor) -> Tensor:
        """Return the factor of the clean sample: float64 [B] on the CPU."""
        return self._alpha[t.cpu()]

    def sigma(self, t: Tensor) -> Tensor:
        """Return the factor of the noise: float64 [B] on the CPU."""
        return self._sigma[t.cpu()]

    def snr(self, t: Tensor) -> Tensor:
        """Return the signal-to-noise ratio (alpha / sigma)^2: float64 [B] on the CPU, in [0, inf)."""
        return (self.alpha(t) / self.sigma(t)) ** 2

    def require(self, prediction: Prediction) -> None:
        """Refuse a prediction that is not defined on this path.

        Raises:
            ConfigError: names what is allowed.
        """
        allowed = ("epsilon", "sample", self.velocity)
        if prediction not in allowed:
            raise ConfigError(f"prediction {prediction!r} is not defined on this path; allowed: {', '.join(allowed)}")

    def add_noise(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return alpha_t * clean + sigma_t * noise, [B, ...]."""
        return _expand(self.alpha(t), clean) * clean + _expand(self.sigma(t), clean) * noise

    def target(self, prediction: Prediction, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what the model should output, [B, ...].

        Raises:
            ConfigError: ``prediction`` is not defined on this path.
        """
        self.require(prediction)
        if prediction == "epsilon":
            return noise
        if prediction == "sample":
            return clean
        at = t.cpu()
        return _expand(self._velocity_noise[at], clean) * noise - _expand(self._velocity_clean[at], clean) * clean

    def to_clean(self, prediction: Prediction, output: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """Return the clean sample that a model's ``output`` implies, [B, ...].

        Raises:
            ConfigError: ``prediction`` is not defined on this path, or it is ``epsilon`` at a timestep without any
                signal, where the noise says nothing about the clean sample.
        """
        self.require(prediction)
        if prediction == "sample":
            return output
        if prediction == "epsilon":
            alpha = self.alpha(t)
            if bool((alpha == 0).any()):
                raise ConfigError(
                    "an epsilon prediction has no clean sample where the signal-to-noise ratio is 0; "
                    f"allowed with zero terminal SNR: {self.velocity}, sample"
                )
            return (noisy - _expand(self.sigma(t), noisy) * output) / _expand(alpha, noisy)
        # Noisy and velocity are two linear equations in clean and noise, with determinant 1 on both kinds of path.
        return _expand(self._velocity_noise[t.cpu()], noisy) * noisy - _expand(self.sigma(t), noisy) * output

    def to_epsilon(self, prediction: Prediction, output: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """Return the noise that a model's ``output`` implies, [B, ...].

        Raises:
            ConfigError: ``prediction`` is not defined on this path.
        """
        self.require(prediction)
        if prediction == "epsilon":
            return output
        if prediction == "sample":
            return (noisy - _expand(self.alpha(t), noisy) * output) / _expand(self.sigma(t), noisy)
        return _expand(self._velocity_clean[t.cpu()], noisy) * noisy + _expand(self.alpha(t), noisy) * output


def linear_alphas_cumprod(timesteps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Return float64 [T] of betas linear in t (Ho et al. 2020, arXiv 2006.11239, section 4)."""
    return (1 - torch.linspace(start, end, timesteps, dtype=torch.float64)).cumprod(0)


def scaled_linear_alphas_cumprod(timesteps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Return float64 [T] of betas whose square roots are linear in t: Stable Diffusion's schedule."""
    return (1 - torch.linspace(start**0.5, end**0.5, timesteps, dtype=torch.float64) ** 2).cumprod(0)


def cosine_alphas_cumprod(timesteps: int = 1000) -> Tensor:
    """Return float64 [T] of the cosine schedule (Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17).

    As there, s = 0.008 and no beta exceeds 0.999, so that the last signal-to-noise ratio is small but not 0.
    """
    at = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    f = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
    return (f[1:] / f[:-1]).clamp(min=1 - 0.999).cumprod(0)


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shift and scale sqrt(alphas_cumprod) so that the last value is 0 and the first stays.

    Source: Lin et al. 2023, arXiv 2305.08891, algorithm 1.

    Args:
        alphas_cumprod: [T] with T >= 2.

    Returns:
        float64 [T].
    """
    alpha = alphas_cumprod.to(torch.float64).sqrt()
    return ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2


def _expand(values: Tensor, like: Tensor) -> Tensor:
    """Return [B] values as [B, 1, ...] in the dtype and on the device of the samples ``like``."""
    return values.to(like.device, like.dtype).view(-1, *(1,) * (like.ndim - 1))
