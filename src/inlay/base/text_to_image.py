"""What the families of Stable Diffusion do alike: pixels to latents and back, and the scheduler of their pipelines."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from inlay.base import autoencoder
from inlay.base.architecture import TextArchitecture, make_scheduler
from inlay.base.contract import Base
from inlay.base.locate import read_json
from inlay.base.prompts import Prompts
from inlay.files import write_json


class TextToImage(Base, ABC):
    """A frozen text-to-image model with an autoencoder."""

    prompts: Prompts

    def __init__(self, architecture: TextArchitecture, components: dict[str, nn.Module], prompts: Prompts, name: str):
        """Take over what has been loaded."""
        super().__init__(components, prompts, name)
        self.scheduler = make_scheduler(architecture.scheduler)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the only text encoder, or of the first."""
        return self.prompts.tokenizer

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.components["vae"]

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return autoencoder.encode(self.vae, pixels)

    def image_encoder_hash(self) -> str:
        return autoencoder.encoder_hash(self.vae)

    def decode(self, latents: Tensor) -> Tensor:
        return autoencoder.decode(self.vae, latents)

    def overlong(self, prompts: Sequence[str]) -> list[str]:
        return self.prompts.overlong(prompts)


def pipeline_scheduler(config: Mapping[str, Any]) -> Any:
    """Return the DDIM scheduler that a saved pipeline gets, with the noise schedule of the base's own."""
    from diffusers import DDIMScheduler

    keep = {key: value for key, value in config.items() if not key.startswith("_")}
    return DDIMScheduler.from_config({"clip_sample": False, "set_alpha_to_one": False, **keep})


def compute_in_float32(folder: Path) -> None:
    """Let the configuration of a saved text encoder say float32, whatever its weights are stored in.

    transformers computes in the precision that it finds there, diffusers in float32: a pipeline of which each loads a
    part would fail at the first picture.
    """
    config = folder / "config.json"
    write_json(config, {**read_json(config), "dtype": "float32"})
