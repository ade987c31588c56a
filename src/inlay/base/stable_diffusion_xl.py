"""Stable Diffusion XL (arXiv 2307.01952): load, encode, predict, decode.

Shapes as in :mod:`inlay.base.contract`; L tokens a prompt, D the width of the text states. Ids [B, 2 L] are those of
both tokenizers; conditions [B, L + 1, D] are the tokens' states and, in the last row, the vector of the whole prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inlay.base.architecture_xl import SECOND, ArchitectureXL
from inlay.base.locate import Location
from inlay.base.prompts import Prompts, load_second_tokenizer, load_tokenizer
from inlay.base.settings import BaseSettings
from inlay.base.text_to_image import TextToImage, compute_in_float32, pipeline_scheduler
from inlay.base.weights import Convert, hashes, joined, load_parts


class StableDiffusionXL(TextToImage):
    """A frozen text-to-image model with two text encoders."""

    def __init__(
        self, architecture: ArchitectureXL, components: dict[str, nn.Module], first: Any, second: Any, name: str
    ):
        """Put together what :func:`load_xl` has loaded; ``first`` and ``second`` are the tokenizers."""
        super().__init__(architecture, components, Prompts(first, architecture.tokens), name)
        self._architecture = architecture
        self._second = Prompts(second, architecture.tokens)
        self._empty: Tensor | None = None

    @property
    def architecture(self) -> ArchitectureXL:
        """The configurations of its parts."""
        return self._architecture

    def twin(self, components: dict[str, nn.Module]) -> StableDiffusionXL:
        return StableDiffusionXL(self.architecture, components, self.tokenizer, self._second.tokenizer, self.name)

    def prompt_reader_hash(self) -> str:
        rule = b"empty is zero" if self.architecture.empty_is_zero else b""
        return joined([*(self.part_hashes[part].encode() for part in self.architecture.readers), rule])

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        return torch.cat([self.prompts.tokenize(prompts), self._second.tokenize(prompts)], dim=1)

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
        if not self.architecture.empty_is_zero or self.tokenizer is None:
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

    def save_pipeline(self, directory: Path) -> None:
        """Write everything as a diffusers ``StableDiffusionXLPipeline`` directory."""
        from diffusers import StableDiffusionXLPipeline

        tokenizers = {"tokenizer": self.tokenizer, "tokenizer_2": self._second.tokenizer}
        scheduler = pipeline_scheduler(self.architecture.scheduler)
        parts: dict[str, Any] = {**self.components, **tokenizers, "scheduler": scheduler}
        pipeline = StableDiffusionXLPipeline(
            **parts, force_zeros_for_empty_prompt=self.architecture.empty_is_zero, add_watermarker=False
        )
        pipeline.save_pretrained(directory, safe_serialization=True)
        for name in ("text_encoder", "text_encoder_2"):
            compute_in_float32(directory / name)
        for name, tokenizer in tokenizers.items():  # what transformers before 5 reads instead of tokenizer.json
            tokenizer.backend_tokenizer.model.save(str(directory / name))


def load_xl(architecture: ArchitectureXL, settings: BaseSettings, location: Location) -> StableDiffusionXL:
    """Load the weights that belong to an architecture, in float32 on the CPU.

    Raises:
        ConfigError: files are missing, or do not fit the configuration.
    """
    components = architecture.meta()
    load_parts(location, components, _originals(architecture))
    first = load_tokenizer(settings, location, architecture)
    base = StableDiffusionXL(architecture, components, first, load_second_tokenizer(settings, location), settings.model)
    base.file_hash, base.part_hashes = hashes(location, components)
    return base


def _originals(architecture: ArchitectureXL) -> Mapping[str, Convert]:
    """Return how each part comes out of one file in the layout of the original code (sgm)."""
    from diffusers.loaders import single_file_utils as layout

    def second(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return layout.convert_open_clip_checkpoint(
            architecture.build(SECOND), state, prefix="conditioner.embedders.1.model."
        )

    return {
        "unet": lambda state: layout.convert_ldm_unet_checkpoint(state, dict(architecture.unet)),
        "vae": lambda state: layout.convert_ldm_vae_checkpoint(state, dict(architecture.vae)),
        "text_encoder": layout.convert_ldm_clip_checkpoint,
        SECOND: second,
    }
