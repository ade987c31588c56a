"""Stable Diffusion 1.x and 2.x: load, encode, predict, decode.

Shapes: B pictures, 3 x H x W pixels in [-1, 1]; latents [B, C, h, w] already times the autoencoder's scaling factor;
text states [B, L, D]; timesteps int64 [B].
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from inlay.base import autoencoder
from inlay.base.architecture import Architecture, TextArchitecture, make_scheduler, read_architecture
from inlay.base.contract import Base
from inlay.base.locate import Location, locate, weight_files
from inlay.base.prompts import Prompts, load_tokenizer
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError
from inlay.randomness import derive

PARTS = ("unet", "vae", "text_encoder")
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class StableDiffusion(Base):
    """A frozen text-to-image model."""

    def __init__(self, architecture: Architecture, components: dict[str, nn.Module], tokenizer: Any, name: str):
        """Put together what :func:`load_base` has loaded."""
        self._architecture = architecture
        self.components = components
        self.tokenizer = tokenizer
        self.prompts: Prompts = Prompts(tokenizer, architecture.tokens)
        self.name = name
        self.file_hash = None
        self.part_hashes = {}
        self.scheduler = make_scheduler(architecture.scheduler)
        for module in components.values():
            module.requires_grad_(False).eval()

    @property
    def architecture(self) -> Architecture:
        """The configurations of its parts."""
        return self._architecture

    def twin(self, components: dict[str, nn.Module]) -> StableDiffusion:
        return StableDiffusion(self.architecture, components, self.tokenizer, self.name)

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.components["vae"]

    @property
    def text_encoder(self) -> Any:
        """The text encoder."""
        return self.components["text_encoder"]

    @property
    def scaling_factor(self) -> float:
        """Factor from the autoencoder's latents to the denoiser's."""
        return autoencoder.scaling_factor(self.vae)

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return autoencoder.encode(self.vae, pixels)

    def image_encoder_hash(self) -> str:
        return autoencoder.encoder_hash(self.vae)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        return self.prompts.tokenize(prompts)

    def overlong(self, prompts: Sequence[str]) -> list[str]:
        return self.prompts.overlong(prompts)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Token ids int64 [B, L] => text states [B, L, D], the last hidden state after the final layer norm."""
        return self.text_encoder(tokens.to(self.device))[0]

    def predict(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        dtype = self.unet.dtype
        return self.unet(noisy.to(dtype), timesteps, states.to(dtype), return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        return autoencoder.decode(self.vae, latents)

    def save_pipeline(self, directory: Path) -> None:
        """Write everything as a diffusers ``StableDiffusionPipeline`` directory."""
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        keep = {key: value for key, value in self.architecture.scheduler.items() if not key.startswith("_")}
        scheduler: Any = DDIMScheduler.from_config({"clip_sample": False, "set_alpha_to_one": False, **keep})
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=scheduler,
            safety_checker=None,  # pyright: ignore[reportArgumentType]
            feature_extractor=None,  # pyright: ignore[reportArgumentType]
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(directory, safe_serialization=True)
        # transformers before 5 and the tools built on it read these two files instead of tokenizer.json.
        self.tokenizer.backend_tokenizer.model.save(str(directory / "tokenizer"))


def load_base(settings: BaseSettings, scratch: dict[str, Any] | None = None, seed: int = 0) -> StableDiffusion:
    """Load a base's weights in float32 on the CPU.

    Args:
        settings: the base section.
        scratch: configuration of a denoiser to initialise instead of loading one; keys of ``UNet2DConditionModel``.
        seed: decides the initialisation of a denoiser from scratch.

    Raises:
        ConfigError: the base is not found, incomplete, or not a Stable Diffusion 1.x or 2.x model.
    """
    location = locate(settings, weights=True)
    return load(read_architecture(settings, location, scratch), settings, location, scratch is not None, seed)


def load(
    architecture: Architecture, settings: BaseSettings, location: Location, scratch: bool, seed: int
) -> StableDiffusion:
    """Load the weights that belong to an architecture; arguments and errors as in :func:`load_base`.

    Args:
        architecture: from :func:`inlay.base.architecture.read_architecture`, or changed since.
        settings: the base section.
        location: where the files are.
        scratch: whether the denoiser is initialised.
        seed: decides that.
    """
    if location.kind == "checkpoint":
        components = _load_checkpoint(location, architecture)
        files = {part: [location.path] for part in PARTS}
    else:
        parts = ("vae", "text_encoder") if scratch else PARTS
        files = {part: weight_files(location.path, part) for part in parts}
        components = {part: load_part(architecture, part, found) for part, found in files.items()}
    if scratch:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "denoiser"))
            components["unet"] = architecture.build("unet")
    base = StableDiffusion(architecture, components, load_tokenizer(settings, location, architecture), settings.model)
    digests = {path: digest(path) for paths in files.values() for path in paths}
    base.file_hash = hashlib.sha256(b"".join(digests.values())).hexdigest()
    base.part_hashes = {
        part: hashlib.sha256(b"".join(digests[path] for path in paths)).hexdigest() for part, paths in files.items()
    }
    return base


def digest(path: Path) -> bytes:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def load_part(architecture: TextArchitecture, part: str, files: Sequence[Path]) -> nn.Module:
    """Return one part with the weights of its files, shards in order, in float32.

    Raises:
        ConfigError: the weights do not fit the configuration.
    """
    with torch.device("meta"):
        module = architecture.build(part)
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_weights(file)
    fill(module, state, f"{files[0].parent}")
    return module


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file}: not a readable safetensors file: {error}") from None


def fill(module: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Give a module from the meta device its weights in float32.

    Raises:
        ConfigError: they do not fit; it says where they are from.
    """
    expected = module.state_dict()
    if not any(key.startswith("text_model.") for key in expected):
        state = {key.removeprefix("text_model."): value for key, value in state.items()}
    # Older files hold position indices, which are no weights, and other names; CLIPTextModel has no projection.
    state = {_present_name(key): value for key, value in state.items() if not key.endswith("position_ids")}
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    unexpected = [key for key in unexpected if key != "text_projection.weight"]
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected.keys() & state.keys()
        if state[key].shape != expected[key].shape
    ]
    if missing or unexpected or wrong:
        parts = [("missing", missing), ("not expected", unexpected), ("of another shape", sorted(wrong))]
        said = "; ".join(f"{len(keys)} {what}, such as {keys[0]}" for what, keys in parts if keys)
        raise ConfigError(f"{where}: the weights do not fit the configuration: {said}")
    module.load_state_dict({key: state[key].to(torch.float32) for key in expected}, assign=True)
    _restore_buffers(module)


def _present_name(key: str) -> str:
    """Return the name that diffusers now gives to a tensor of the autoencoder's attention (files of 2022 and 2023)."""
    before, found, after = key.partition("mid_block.attentions.0.")
    for old, new in OLD_ATTENTION.items():
        if found and after.startswith(f"{old}."):
            return before + found + new + after.removeprefix(old)
    return key


def _restore_buffers(module: nn.Module) -> None:
    """Recompute buffers that files do not hold and the meta device therefore left empty."""
    for submodule in module.modules():
        for name, buffer in submodule.named_buffers(recurse=False):
            if not buffer.is_meta:
                continue
            if name != "position_ids":
                raise ConfigError(f"{type(submodule).__name__}.{name} cannot be restored; this is not a known base")
            setattr(submodule, name, torch.arange(buffer.shape[-1]).expand(buffer.shape).clone())


def _load_checkpoint(location: Location, architecture: Architecture) -> dict[str, nn.Module]:
    """Read one file in the layout of the original Stable Diffusion code."""
    from diffusers.loaders import single_file_utils as layout

    state = read_weights(location.path)
    if any(key.startswith("cond_stage_model.transformer.") for key in state):
        text = layout.convert_ldm_clip_checkpoint(state)
    else:
        text = layout.convert_open_clip_checkpoint(architecture.build("text_encoder"), state)
    states = {
        "unet": layout.convert_ldm_unet_checkpoint(dict(state), dict(architecture.unet)),
        "vae": layout.convert_ldm_vae_checkpoint(dict(state), dict(architecture.vae)),
        "text_encoder": text,
    }
    components = {}
    for part, converted in states.items():
        with torch.device("meta"):
            module = architecture.build(part)
        fill(module, converted, f"{location.path} ({part})")
        components[part] = module
    return components
