"""The noise path of a base."""

from __future__ import annotations

from inlay.base.contract import BaseArchitecture
from inlay.objective.path import Path


def noise_path(architecture: BaseArchitecture) -> Path:
    """Return the path on which a base denoises.

    Raises:
        ConfigError: its schedule is none.
    """
    if architecture.flow:
        return Path.rectified_flow(int(architecture.scheduler["num_train_timesteps"]))
    return Path.from_alphas_cumprod(architecture.alphas_cumprod())
