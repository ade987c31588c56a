"""A loaded diffusion model without text; see :mod:`inlay.base.plain`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inlay.base import autoencoder
from inlay.base.contract import Base
from inlay.base.locate import PLAIN, Location
from inlay.base.plain import FOLDERS, IMAGENET, PlainArchitecture, denoiser_class, manifest, pixels_hash
from inlay.base.settings import BaseSettings
from inlay.base.weights import hash_of
from inlay.errors import ConfigError
from inlay.randomness import derive


class PlainDiffusion(Base):
    """A model of pixels or latents, unconditional or of classes."""

    def __init__(self, architecture: PlainArchitecture, components: dict[str, nn.Module], name: str):
        """Put together what has been loaded or initialised."""
        super().__init__(components, None, name)
        self._architecture = architecture

    @property
    def architecture(self) -> PlainArchitecture:
        """The configurations of its parts."""
        return self._architecture

    def twin(self, components: dict[str, nn.Module]) -> PlainDiffusion:
        return PlainDiffusion(self.architecture, components, self.name)

    @property
    def vae(self) -> Any | None:
        """The autoencoder; None for a model of pixels."""
        return self.components.get("vae")

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.vae is None:
            return pixels.to(self.device).float(), None
        return autoencoder.encode(self.vae, pixels)

    def image_encoder_hash(self) -> str:
        return pixels_hash() if self.vae is None else autoencoder.encoder_hash(self.vae)

    def prompt_reader_hash(self) -> str:
        return "numbers of classes, as they are"

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        if self.architecture.conditioning == "none":
            return torch.zeros((len(prompts), 0), dtype=torch.int64)
        return torch.tensor([[self.architecture.class_number(prompt)] for prompt in prompts])

    def overlong(self, prompts: Sequence[str]) -> list[str]:
        return []

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        return tokens.to(self.device)

    def predict(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        labels = states[:, 0] if states.shape[1] else None
        if labels is None and self.architecture.kind == "DiTTransformer2DModel":
            labels = torch.zeros_like(timesteps)
        # diffusers counts the steps of a flow from 1, level 1 / T, and those of other paths from 0.
        at = timesteps + 1 if self.architecture.flow else timesteps
        return self.unet(noisy.to(self.unet.dtype), at, class_labels=labels, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        return latents.float().clamp(-1, 1) if self.vae is None else autoencoder.decode(self.vae, latents)

    def save_pipeline(self, directory: Path) -> None:
        """Write everything as a directory in diffusers' layout, a whole pipeline of diffusers where it has one.

        Those are ``DDPMPipeline`` (an unconditional U-Net of pixels) and ``DiTPipeline`` (a DiT of ImageNet's classes
        on latents); parts of others load by their classes' ``from_pretrained``.
        """
        architecture = self.architecture
        scheduler = self._scheduler()
        unconditional = architecture.conditioning == "none" and self.vae is None
        if architecture.kind == "UNet2DModel" and unconditional and not architecture.flow:
            from diffusers import DDPMPipeline

            DDPMPipeline(self.unet, scheduler).save_pretrained(directory, safe_serialization=True)
        elif (
            architecture.kind == "DiTTransformer2DModel"
            and self.vae is not None
            and len(architecture.classes) == IMAGENET
        ):
            from diffusers import DiTPipeline

            pipeline = DiTPipeline(self.unet, self.vae, scheduler)
            pipeline.save_pretrained(directory, safe_serialization=True)
            index = directory / "model_index.json"
            names = {str(number): name for number, name in enumerate(architecture.classes)}
            said = {**json.loads(index.read_text(encoding="utf-8")), "id2label": names}
            index.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        else:
            self.unet.save_pretrained(directory / FOLDERS[architecture.kind], safe_serialization=True)
            scheduler.save_pretrained(directory / "scheduler")
            if self.vae is not None:
                self.vae.save_pretrained(directory / "vae", safe_serialization=True)
        (directory / PLAIN).write_text(manifest(architecture), encoding="utf-8")

    def _scheduler(self) -> Any:
        import diffusers

        keep = {key: value for key, value in self.architecture.scheduler.items() if not key.startswith(("_", "inlay"))}
        kind = diffusers.FlowMatchEulerDiscreteScheduler if self.architecture.flow else diffusers.DDPMScheduler
        return kind.from_config(keep)


def initialise(architecture: PlainArchitecture, vae: Mapping[str, Any], settings: BaseSettings, seed: int) -> Base:
    """Return a model whose denoiser begins; what it begins with follows from the seed.

    Args:
        architecture: of the model.
        vae: the autoencoder by the name `vae`, or nothing.
        settings: the base section.
        seed: the run's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "denoiser"))
        components = {"unet": architecture.build(), **vae}
    return PlainDiffusion(architecture, components, settings.model)


def load_plain(architecture: PlainArchitecture, location: Location, settings: BaseSettings) -> PlainDiffusion:
    """Load what :meth:`PlainDiffusion.save_pipeline` has written, in float32 on the CPU.

    Raises:
        ConfigError: files are missing or do not fit.
    """
    from diffusers import AutoencoderKL

    folder = location.path / FOLDERS[architecture.kind]
    parts = {"unet": (denoiser_class(architecture.kind), folder)}
    if architecture.vae is not None:
        parts["vae"] = AutoencoderKL, location.path / "vae"
    components, hashes = {}, {}
    for part, (kind, place) in parts.items():
        files = sorted(place.glob("*.safetensors"))
        if not files:
            raise ConfigError(f"{place}: no weights of the model's {part}")
        try:
            components[part] = kind.from_pretrained(place, torch_dtype=torch.float32, use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{place}: cannot be loaded: {error}") from None
        hashes[part] = hash_of(files)
    base = PlainDiffusion(architecture, components, settings.model)
    base.part_hashes = hashes
    base.file_hash = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()
    return base
