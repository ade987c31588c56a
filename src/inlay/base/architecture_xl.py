"""What a Stable Diffusion XL base is made of (arXiv 2307.01952), known from its configuration files alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.base.architecture import TextArchitecture, build_latent_part, check_inputs, state_schedule
from inlay.base.contract import Base
from inlay.base.locate import CONFIGS, read_json
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

SECOND = "text_encoder_2"
CONFIGS_XL = {**CONFIGS, SECOND: "text_encoder_2/config.json"}
SIZES = 6
"""Numbers that the denoiser is told of a picture: original size, corner of the crop, and size, each (height, width)."""


@dataclass(frozen=True)
class ArchitectureXL(TextArchitecture):
    """A Stable Diffusion XL pipeline: two text encoders, and a denoiser that is also told the picture's size."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    text_encoder_2: dict[str, Any]
    scheduler: dict[str, Any]
    empty_is_zero: bool
    """Whether the empty prompt is zeros rather than what the text encoders make of it."""

    @property
    def readers(self) -> tuple[str, ...]:
        return ("text_encoder", SECOND)

    @property
    def prompt_ids(self) -> int:
        """As many for each of the two tokenizers."""
        return 2 * self.tokens

    @property
    def pooled_width(self) -> int:
        """Width of the one vector that the second text encoder makes of a whole prompt."""
        return int(self.text_encoder_2["projection_dim"])

    @property
    def text_shape(self) -> tuple[int, int]:
        """The tokens' states, and in a last row, filled up with zeros, the vector of the whole prompt."""
        return self.tokens + 1, int(self.text_encoder["hidden_size"]) + int(self.text_encoder_2["hidden_size"])

    @property
    def guidance(self) -> float:
        return 5.0

    def build(self, part: str) -> nn.Module:
        if part in self.readers:
            from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

            model = CLIPTextModelWithProjection if part == SECOND else CLIPTextModel
            return model(CLIPTextConfig(**getattr(self, part)))
        return build_latent_part(part, getattr(self, part))

    def skeleton(self, name: str) -> Base:
        from inlay.base.stable_diffusion_xl import StableDiffusionXL

        return StableDiffusionXL(self, self.meta(), None, None, name)


def is_xl(folder: Path) -> bool:
    """Return whether a directory in diffusers' layout has the denoiser of Stable Diffusion XL."""
    path = folder / CONFIGS["unet"]
    return path.is_file() and read_json(path).get("addition_embed_type") == "text_time"


def read_architecture_xl(settings: BaseSettings, folder: Path) -> ArchitectureXL:
    """Read a base's configuration files and apply what ``settings`` states about them.

    Raises:
        ConfigError: the files are not those of a Stable Diffusion XL base.
    """
    missing = [relative for relative in CONFIGS_XL.values() if not (folder / relative).is_file()]
    if missing:
        raise ConfigError(
            f"base.model={settings.model}: the denoiser is that of Stable Diffusion XL, and {folder} has no "
            f"{', no '.join(missing)}; its refiner, which reads one text encoder, is not supported"
        )
    configs = {part: read_json(folder / path) for part, path in CONFIGS_XL.items()}
    check_inputs(settings, configs)
    index = folder / "model_index.json"
    stated = read_json(index) if index.is_file() else {}
    architecture = ArchitectureXL(
        **{**configs, "scheduler": state_schedule(settings, configs["scheduler"])},
        empty_is_zero=bool(stated.get("force_zeros_for_empty_prompt", True)),
    )
    widths = architecture.text_shape[1], int(architecture.unet["cross_attention_dim"])
    if widths[0] != widths[1]:
        raise ConfigError(
            f"base.model={settings.model}: the text encoders together give states of width {widths[0]}, and the "
            f"denoiser reads {widths[1]}"
        )
    vector = architecture.pooled_width + SIZES * int(architecture.unet["addition_time_embed_dim"])
    if vector != architecture.unet["projection_class_embeddings_input_dim"]:
        raise ConfigError(
            f"base.model={settings.model}: prompt and sizes make a vector of {vector} numbers, and the denoiser reads "
            f"{architecture.unet['projection_class_embeddings_input_dim']}"
        )
    return architecture
