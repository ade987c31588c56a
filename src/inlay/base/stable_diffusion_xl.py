"""Stable Diffusion XL (arXiv 2307.01952): load, encode, predict, decode.

Shapes as in :mod:`inlay.base.contract`; L tokens a prompt, D the width of the text states. Ids [B, 2 L] are those of
both tokenizers; conditions [B, L + 1, D] are the tokens' states and, in the last row, the vector of the whole prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inlay.base import autoencoder
from inlay.base.architecture import make_scheduler
from inlay.base.architecture_xl import SECOND, ArchitectureXL
from inlay.base.contract import Base
from inlay.base.locate import Location, weight_files
from inlay.base.prompts import Prompts, load_second_tokenizer, load_tokenizer
from inlay.base.settings import BaseSettings
from inlay.base.stable_diffusion import digest, fill, load_part, read_weights


class StableDiffusionXL(Base):
    """A frozen text-to-image model with two text encoders."""

    def __init__(
        self, architecture: ArchitectureXL, components: dict[str, nn.Module], first: Any, second: Any, name: str
    ):
        """Put together what :func:`load_xl` has loaded; ``first`` and ``second`` are the tokenizers."""
        self._architecture = architecture
        self.components = components
        self.prompts: Prompts = Prompts(first, architecture.tokens)
        self._second = Prompts(second, architecture.tokens)
        self._empty: Tensor | None = None
        self.name = name
        self.file_hash = None
        self.part_hashes = {}
        self.scheduler = make_scheduler(architecture.scheduler)
        for module in components.values():
            module.requires_grad_(False).eval()

    @property
    def architecture(self) -> ArchitectureXL:
        """The configurations of its parts."""
        return self._architecture

    def twin(self, components: dict[str, nn.Module]) -> StableDiffusionXL:
        first, second = self.prompts.tokenizer, self._second.tokenizer
        return StableDiffusionXL(self.architecture, components, first, second, self.name)

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.components["vae"]

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return autoencoder.encode(self.vae, pixels)

    def image_encoder_hash(self) -> str:
        return autoencoder.encoder_hash(self.vae)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        return torch.cat([self.prompts.tokenize(prompts), self._second.tokenize(prompts)], dim=1)

    def overlong(self, prompts: Sequence[str]) -> list[str]:
        return self.prompts.overlong(prompts)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Ids [B, 2 L] => conditions [B, L + 1, D].

        Of each text encoder the states before its last layer, side by side; of the second also the projected vector.
        Zeros for the empty prompt where the base was trained so, as diffusers' pipeline guides away from them.
        """
        tokens = tokens.to(self.device)
        halves = tokens.chunk(2, dim=1)
        first = self.components["text_encoder"](halves[0], output_hidden_states=True)
        second = self.components[SECOND](halves[1], output_hidden_states=True)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        pooled = second.text_embeds
        row = nn.functional.pad(pooled, (0, states.shape[-1] - pooled.shape[-1]))
        conditions = torch.cat([states, row[:, None]], dim=1)
        if not self.architecture.empty_is_zero or self.prompts.tokenizer is None:
            return conditions
        if self._empty is None:
            self._empty = self.tokenize([""])
        empty = (tokens == self._empty.to(tokens.device)).all(dim=1)
        return conditions.masked_fill(empty[:, None, None], 0)

    def predict(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """Return the prediction; the picture counts as one of just this size that was not cropped."""
        dtype, width = self.unet.dtype, self.architecture.pooled_width
        states = states.to(dtype)
        height, length = (side * self.architecture.downscale for side in noisy.shape[-2:])
        sizes = torch.tensor([height, length, 0, 0, height, length], dtype=dtype, device=noisy.device)
        added = {"text_embeds": states[:, -1, :width], "time_ids": sizes.expand(len(noisy), -1)}
        return self.unet(noisy.to(dtype), timesteps, states[:, :-1], added_cond_kwargs=added, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        return autoencoder.decode(self.vae, latents)

    def save_pipeline(self, directory: Path) -> None:
        """Write everything as a diffusers ``StableDiffusionXLPipeline`` directory."""
        from diffusers import DDIMScheduler, StableDiffusionXLPipeline

        keep = {key: value for key, value in self.architecture.scheduler.items() if not key.startswith("_")}
        scheduler: Any = DDIMScheduler.from_config({"clip_sample": False, "set_alpha_to_one": False, **keep})
        tokenizers = {"tokenizer": self.prompts.tokenizer, "tokenizer_2": self._second.tokenizer}
        parts: dict[str, Any] = {**self.components, **tokenizers, "scheduler": scheduler}
        pipeline = StableDiffusionXLPipeline(
            **parts, force_zeros_for_empty_prompt=self.architecture.empty_is_zero, add_watermarker=False
        )
        pipeline.save_pretrained(directory, safe_serialization=True)
        for name, tokenizer in tokenizers.items():  # what transformers before 5 reads instead of tokenizer.json
            tokenizer.backend_tokenizer.model.save(str(directory / name))


def load_xl(architecture: ArchitectureXL, settings: BaseSettings, location: Location) -> StableDiffusionXL:
    """Load the weights that belong to an architecture, in float32 on the CPU.

    Raises:
        ConfigError: files are missing, or do not fit the configuration.
    """
    parts = ("unet", "vae", *architecture.readers)
    if location.kind == "checkpoint":
        components = _load_checkpoint(location, architecture)
        files = {part: [location.path] for part in parts}
    else:
        files = {part: weight_files(location.path, part) for part in parts}
        components = {part: load_part(architecture, part, found) for part, found in files.items()}
    first = load_tokenizer(settings, location, architecture)
    base = StableDiffusionXL(architecture, components, first, load_second_tokenizer(settings, location), settings.model)
    digests = {path: digest(path) for paths in files.values() for path in paths}
    base.file_hash = hashlib.sha256(b"".join(digests.values())).hexdigest()
    # What the empty prompt becomes is no matter of the weights, yet of what is kept of prompts under this hash.
    rule = {SECOND: b"empty is zero" if architecture.empty_is_zero else b""}
    base.part_hashes = {
        part: hashlib.sha256(b"".join([*(digests[path] for path in paths), rule.get(part, b"")])).hexdigest()
        for part, paths in files.items()
    }
    return base


def _load_checkpoint(location: Location, architecture: ArchitectureXL) -> dict[str, nn.Module]:
    """Read one file in the layout of the original code (sgm)."""
    from diffusers.loaders import single_file_utils as layout

    state = read_weights(location.path)
    states = {
        "unet": layout.convert_ldm_unet_checkpoint(dict(state), dict(architecture.unet)),
        "vae": layout.convert_ldm_vae_checkpoint(dict(state), dict(architecture.vae)),
        "text_encoder": layout.convert_ldm_clip_checkpoint(state),
        SECOND: layout.convert_open_clip_checkpoint(
            architecture.build(SECOND), state, prefix="conditioner.embedders.1.model."
        ),
    }
    components = {}
    for part, converted in states.items():
        with torch.device("meta"):
            module = architecture.build(part)
        fill(module, converted, f"{location.path} ({part})")
        components[part] = module
    return components
