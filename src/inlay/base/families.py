"""Which family a base belongs to. Whatever reads or loads a base of any kind asks here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from inlay.base.architecture import Architecture, architecture_folder, build_latent_part, read_architecture
from inlay.base.architecture_xl import ArchitectureXL, is_xl, read_architecture_xl
from inlay.base.contract import Base, BaseArchitecture
from inlay.base.locate import CONFIGS, PLAIN, Location, locate, read_json, weight_files
from inlay.base.plain import PlainArchitecture, plain_architecture, read_plain
from inlay.base.scratch import Scratch, scheduler_config
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def read_base(settings: BaseSettings, location: Location, scratch: Scratch | None = None) -> BaseArchitecture:
    """Read a base's configuration files; nothing is loaded.

    Args:
        settings: the base section.
        location: where it lies, from :func:`inlay.base.locate.locate`.
        scratch: a denoiser to initialise instead of the base's own.

    Raises:
        ConfigError: the files are those of no family, or there is no base and nothing to initialise.
    """
    if scratch is None:
        if location.kind == "nothing":
            raise ConfigError(f"base.model={settings.model}: there is no base to work with; give one")
        if (location.path / PLAIN).is_file():
            return read_plain(location.path)
        folder = architecture_folder(settings, location)
        return read_architecture_xl(settings, folder) if is_xl(folder) else read_architecture(settings, location)
    if scratch.conditioning == "text":
        return _with_text(settings, location, scratch)
    if location.kind == "nothing":
        return plain_architecture(scratch, None, {})
    folder = architecture_folder(settings, location)
    vae, scheduler = (read_json(folder / CONFIGS[part]) for part in ("vae", "scheduler"))
    if settings.zero_terminal_snr != "auto":
        scheduler["rescale_betas_zero_snr"] = settings.zero_terminal_snr
    stated = scheduler.get("prediction_type", "epsilon") if settings.prediction == "auto" else settings.prediction
    return plain_architecture(scratch, vae, {**scheduler, "prediction_type": stated})


def _with_text(settings: BaseSettings, location: Location, scratch: Scratch) -> Architecture:
    if location.kind != "nothing" and is_xl(architecture_folder(settings, location)):
        raise ConfigError(
            f"base.model={settings.model}: a denoiser from scratch between the parts of Stable Diffusion XL is not "
            "supported; give a base of Stable Diffusion 1.x or 2.x, or conditioning=class"
        )
    if location.kind == "nothing":
        raise ConfigError("conditioning=text: needs a base, whose text encoder reads the captions; give `base`")
    denoiser = {key: value for key, value in scratch.denoiser.items() if key != "_class_name"}
    architecture = read_architecture(settings, location, denoiser)
    scheduler = dict(architecture.scheduler)
    if scratch.path is not None:
        scheduler |= scheduler_config(scratch.path, architecture.prediction, pixels=False)
    if scratch.prediction != "auto":
        scheduler["prediction_type"] = scratch.prediction
    return replace(architecture, scheduler=scheduler)


def load_base(settings: BaseSettings, scratch: Scratch | None = None, seed: int = 0) -> Base:
    """Load a base of any family in float32 on the CPU.

    Args:
        settings: the base section.
        scratch: a denoiser to initialise instead of the base's own.
        seed: decides its initialisation.

    Raises:
        ConfigError: the base is not found, is incomplete, or belongs to no family.
    """
    location = locate(settings)
    architecture = read_base(settings, location, scratch)
    if isinstance(architecture, ArchitectureXL):
        from inlay.base.stable_diffusion_xl import load_xl

        return load_xl(architecture, settings, location)
    if isinstance(architecture, Architecture):
        from inlay.base.stable_diffusion import load

        return load(architecture, settings, location, scratch is not None, seed)
    from inlay.base.plain_model import initialise, load_plain

    assert isinstance(architecture, PlainArchitecture)
    if scratch is None:
        return load_plain(architecture, location, settings)
    autoencoder, hashes = _autoencoder(architecture, location, settings)
    base = initialise(architecture, autoencoder, settings, seed)
    base.part_hashes = hashes
    base.file_hash = hashes.get("vae")
    return base


def _autoencoder(
    architecture: PlainArchitecture, location: Location, settings: BaseSettings
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return the base's autoencoder and its hash by the name `vae`, or nothing for a model of pixels."""
    if architecture.vae is None:
        return {}, {}
    import torch

    from inlay.base.weights import fill, hash_of, read_weights

    if location.kind == "checkpoint":
        raise ConfigError(
            f"base.model={settings.model}: latents for a model without text come from a directory in diffusers' "
            "layout; one .safetensors file is not read for them"
        )
    if (location.path / PLAIN).is_file():
        files = sorted((location.path / "vae").glob("*.safetensors"))
    else:
        files = weight_files(location.path, "vae")
    with torch.device("meta"):
        vae = build_latent_part("vae", dict(architecture.vae))
    fill(vae, read_weights(files), f"{files[0].parent}")
    return {"vae": vae}, {"vae": hash_of(files)}
