"""A model's own weights under the names that files have, and the model that a name on the command line means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from inlay.artifacts.blueprint import Blueprint, file_name, layer_shapes
from inlay.base.settings import BaseSettings
from inlay.base.stable_diffusion import StableDiffusion, load_base
from inlay.errors import ConfigError
from inlay.run.directory import RUN_FILE, load_run


def load_whole(target: str | Path) -> StableDiffusion:
    """Return a base by its name, or a finished run's tuned model with what was learned folded into its weights.

    Raises:
        InlayError: neither is found, files are broken, or a method of the run cannot be folded in.
    """
    if not (Path(target) / RUN_FILE).is_file():
        return load_base(BaseSettings(model=str(target)))
    base, attachments = load_run(Path(target))
    for attachment in reversed(attachments):
        attachment.merge()
    return base


def weighted_layers(base: StableDiffusion) -> dict[str, Any]:
    """Return the layers of denoiser and text encoder that have a weight, by their names in files."""
    return {
        file_name(part, name): layer
        for part in ("unet", "text_encoder")
        for name, layer in base.components[part].named_modules()
        if isinstance(getattr(layer, "weight", None), nn.Parameter)
    }


def blueprint_of(base: StableDiffusion) -> Blueprint:
    """Return the layers of a loaded base, for the writers of files."""
    return Blueprint(base.name, layer_shapes(base.components))


def refuse_existing(path: Path) -> None:
    """Refuse a place where something is already.

    Raises:
        ConfigError: files are never replaced without being asked.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"--out {path}: exists already; give another name, or remove it first")
