"""A model's own weights under the names that files have, and the model that a name on the command line means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from inlay.artifacts.blueprint import Blueprint, file_name
from inlay.artifacts.formats import FORMATS
from inlay.base.contract import Base
from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError
from inlay.methods import merge_all
from inlay.run.blueprints import base_blueprint
from inlay.run.directory import RUN_FILE, load_run, read_config


def load_whole(target: str | Path) -> Base:
    """Return a base by its name, or a finished run's tuned model with what was learned folded into its weights.

    Raises:
        InlayError: neither is found, files are broken, a method of the run cannot be folded in, or the model has no
            text and so belongs to no format of adapters.
    """
    attachments = []
    if (Path(target) / RUN_FILE).is_file():
        base, attachments = load_run(Path(target))
    else:
        base = load_base(BaseSettings(model=str(target)))
    if base.prompts is None:
        raise ConfigError(f"{target}: a model without text, pretrained from scratch; this needs a text-to-image model")
    merge_all(attachments)
    return base


def weighted_layers(components: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Return the layers of denoiser and text encoders that have a weight, by their names in files."""
    return {
        file_name(part, name): layer
        for part, module in components.items()
        if part != "vae"
        for name, layer in module.named_modules()
        if isinstance(getattr(layer, "weight", None), nn.Parameter)
    }


def base_name(target: str | Path) -> str:
    """Return the base as run files name it: a run's own, or the name itself."""
    return read_config(Path(target)).base.model if (Path(target) / RUN_FILE).is_file() else str(target)


def blueprints_of(target: str | Path) -> list[Blueprint]:
    """Return what writers of files need to know of the model that :func:`load_whole` returns."""
    return [base_blueprint(BaseSettings(model=base_name(target)))]


def refuse_existing(path: Path) -> None:
    """Refuse a place where something is already.

    Raises:
        ConfigError: files are never replaced without being asked.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"--output {path}: exists already; give another name, or remove it first")


def check_format(name: str) -> None:
    """Refuse a format that holds no updates of layers in one file.

    Raises:
        ConfigError: with those that do.
    """
    allowed = [one for one, form in FORMATS.items() if form.contents == "updates" and form.suffix]
    allowed.remove("inlay-bitfit")
    if name not in allowed:
        raise ConfigError(f"--format {name}: allowed here: {', '.join(allowed)}")
