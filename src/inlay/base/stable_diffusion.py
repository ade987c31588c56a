"""Stable Diffusion 1.x and 2.x: load, encode, predict, decode.

Shapes: B pictures, 3 x H x W pixels in [-1, 1]; latents [B, C, h, w] already times the autoencoder's scaling factor;
text states [B, L, D]; timesteps int64 [B].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inlay.base.architecture import Architecture
from inlay.base.locate import Location
from inlay.base.prompts import Prompts, load_tokenizer
from inlay.base.settings import BaseSettings
from inlay.base.text_to_image import TextToImage, compute_in_float32, pipeline_scheduler
from inlay.base.weights import Convert, hashes, load_parts
from inlay.randomness import derive

PARTS = ("unet", "vae", "text_encoder")


class StableDiffusion(TextToImage):
    """A frozen text-to-image model with one text encoder."""

    def __init__(self, architecture: Architecture, components: dict[str, nn.Module], tokenizer: Any, name: str):
        """Put together what :func:`load` has loaded."""
        super().__init__(architecture, components, Prompts(tokenizer, architecture.tokens), name)
        self._architecture = architecture

    @property
    def architecture(self) -> Architecture:
        """The configurations of its parts."""
        return self._architecture

    def twin(self, components: dict[str, nn.Module]) -> StableDiffusion:
        return StableDiffusion(self.architecture, components, self.tokenizer, self.name)

    @property
    def text_encoder(self) -> Any:
        """The text encoder."""
        return self.components["text_encoder"]

    def prompt_reader_hash(self) -> str:
        return self.part_hashes["text_encoder"]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        return self.prompts.tokenize(prompts)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Token ids int64 [B, L] => text states [B, L, D], the last hidden state after the final layer norm."""
        return self.text_encoder(tokens.to(self.device))[0]

    def predict(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        dtype = self.unet.dtype
        return self.unet(noisy.to(dtype), timesteps, states.to(dtype), return_dict=False)[0]

    def save_pipeline(self, directory: Path) -> None:
        """Write everything as a diffusers ``StableDiffusionPipeline`` directory."""
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=pipeline_scheduler(self.architecture.scheduler),
            safety_checker=None,  # pyright: ignore[reportArgumentType]
            feature_extractor=None,  # pyright: ignore[reportArgumentType]
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(directory, safe_serialization=True)
        compute_in_float32(directory / "text_encoder")
        # transformers before 5 and the tools built on it read these two files instead of tokenizer.json.
        self.tokenizer.backend_tokenizer.model.save(str(directory / "tokenizer"))


def load(
    architecture: Architecture, settings: BaseSettings, location: Location, scratch: bool, seed: int
) -> StableDiffusion:
    """Load the weights that belong to an architecture, in float32 on the CPU.

    Args:
        architecture: from :func:`inlay.base.architecture.read_architecture`, or changed since.
        settings: the base section.
        location: where the files are.
        scratch: whether the denoiser is initialised.
        seed: decides that.

    Raises:
        ConfigError: files are missing, or do not fit the configuration.
    """
    components = architecture.meta()
    parts = [part for part in PARTS if part != "unet" or not scratch]
    load_parts(location, {part: components[part] for part in parts}, _originals(architecture))
    if scratch:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "denoiser"))
            components["unet"] = architecture.build("unet")
    base = StableDiffusion(architecture, components, load_tokenizer(settings, location, architecture), settings.model)
    base.file_hash, base.part_hashes = hashes(location, parts)
    return base


def _originals(architecture: Architecture) -> Mapping[str, Convert]:
    """Return how each part comes out of one file in the layout of the original Stable Diffusion code."""
    from diffusers.loaders import single_file_utils as layout

    def text(state: dict[str, Tensor]) -> dict[str, Tensor]:
        if any(key.startswith("cond_stage_model.transformer.") for key in state):
            return layout.convert_ldm_clip_checkpoint(state)
        return layout.convert_open_clip_checkpoint(architecture.build("text_encoder"), state)

    return {
        "unet": lambda state: layout.convert_ldm_unet_checkpoint(state, dict(architecture.unet)),
        "vae": lambda state: layout.convert_ldm_vae_checkpoint(state, dict(architecture.vae)),
        "text_encoder": text,
    }
