"""What to initialise instead of loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inlay.base.settings import PathSettings

BETAS = {
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
}
"""The paths that have a schedule of betas, in diffusers' words."""

CLASS_GUIDANCE = 1.5
"""Scale of guidance for models of classes (arXiv 2303.09556, tables 4 and 5)."""
Conditioning = Literal["none", "class", "text"]
"""What the denoiser is told about a picture."""


@dataclass(frozen=True)
class Scratch:
    """A denoiser to initialise."""

    denoiser: Mapping[str, Any]
    """Its configuration as diffusers writes it, with ``_class_name``; what follows from latents and conditions is
    filled in."""
    conditioning: Conditioning
    path: PathSettings | None
    """None for the base's own, and for `cosine` where there is no base."""
    prediction: str
    """What it shall predict; `auto` for what the base predicts, or else what is natural on the path."""
    classes: tuple[str, ...] = ()
    """Names of the classes in their order."""


def scheduler_config(path: PathSettings, prediction: str, pixels: bool) -> dict[str, Any]:
    """Return the configuration of the diffusers scheduler of a path.

    Args:
        path: which.
        prediction: what the denoiser predicts; `auto` for the noise, or on a flow the velocity.
        pixels: the model draws pixels, which end at -1 and 1, and not latents.
    """
    if path.name == "flow":
        kind = "FlowMatchEulerDiscreteScheduler"
        config = {"_class_name": kind, "num_train_timesteps": path.timesteps, "shift": 1.0}
        return {**config, "inlay_prediction": "flow" if prediction == "auto" else prediction}
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": path.timesteps,
        **BETAS[path.name],
        "prediction_type": "epsilon" if prediction == "auto" else prediction,
        "rescale_betas_zero_snr": path.zero_terminal_snr,
        "timestep_spacing": "trailing" if path.zero_terminal_snr else "leading",
        "clip_sample": pixels,
    }
