"""What every family of base models offers: what is known of it beforehand, and the loaded model.

Shapes: B pictures, 3 x H x W pixels in [-1, 1]; latents [B, C, h, w] are what the denoiser sees, the pixels themselves
where there is no autoencoder; ids int64 [B, L] are what a prompt is for the model (tokens of a text, the number of a
class, nothing); conditions [B, ...] are what the denoiser is given of them; timesteps int64 [B] in [0, T).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inlay.base.prompts import Prompts


class BaseArchitecture(ABC):
    """A base as its configuration files describe it, without weights."""

    scheduler: Mapping[str, Any]
    """Configuration of the diffusers scheduler that holds the noise schedule."""

    @property
    @abstractmethod
    def downscale(self) -> int:
        """Pixels a side of one latent pixel; 1 without an autoencoder."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """C, channels of the latents."""

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Side in pixels of the pictures that the base was trained on, or is to be trained on."""

    @property
    @abstractmethod
    def granularity(self) -> int:
        """Multiple in pixels of which a picture's sides must be."""

    @property
    @abstractmethod
    def one_size(self) -> bool:
        """Whether the denoiser takes pictures of its own resolution only."""

    @property
    @abstractmethod
    def prediction(self) -> str:
        """What the denoiser predicts, by diffusers' name, or `flow`."""

    @property
    @abstractmethod
    def flow(self) -> bool:
        """Whether the path is the straight one of rectified flow instead of a schedule of alphas."""

    @property
    @abstractmethod
    def text_shape(self) -> tuple[int, int] | None:
        """(rows, width) of a prompt's text states, of which most rows are tokens; None for a model without text."""

    @property
    @abstractmethod
    def readers(self) -> tuple[str, ...]:
        """The parts that read prompts, by their names among the components; none for a model without text."""

    @property
    @abstractmethod
    def prompt_ids(self) -> int:
        """L, how many ids a prompt has."""

    @property
    @abstractmethod
    def guidance(self) -> float:
        """Scale of classifier-free guidance where the user states none."""

    @property
    @abstractmethod
    def solver_of_pipeline(self) -> bool:
        """Whether `dpm` means diffusers' own solver, so that pictures are those of the published pipeline."""

    @abstractmethod
    def meta(self) -> dict[str, nn.Module]:
        """Return all parts on the meta device, frozen: shapes and counts without memory."""

    @abstractmethod
    def skeleton(self, name: str) -> Base:
        """Return the base on the meta device, which computes shapes only."""

    @abstractmethod
    def alphas_cumprod(self) -> Tensor:
        """Return the noise schedule [T] of a path that is not a flow."""


class Base(ABC):
    """A loaded model. Nothing in it requires a gradient until a method asks for one."""

    components: dict[str, nn.Module]
    """The parts that methods may address. The denoiser is `unet`, whatever its kind; `vae` and `text_encoder` are there
    where the base has them, and `text_encoder_2` where there are two."""
    prompts: Prompts | None
    """Reads texts, also the words that methods add to them; None for a model without text."""
    name: str
    """As the user gave it."""
    file_hash: str | None
    """SHA-256 over the files that the weights were read from; None where all is initialised."""
    part_hashes: dict[str, str]
    """The same of each part that was read from files, and ` int8` after it where weights have been rounded since."""

    def __init__(self, components: dict[str, nn.Module], prompts: Prompts | None, name: str):
        """Take over what has been loaded or initialised, frozen."""
        self.components = components
        self.prompts = prompts
        self.name = name
        self.file_hash = None
        self.part_hashes = {}
        for module in components.values():
            module.requires_grad_(False).eval()

    @property
    @abstractmethod
    def architecture(self) -> BaseArchitecture:
        """What the base is made of."""

    @abstractmethod
    def twin(self, components: dict[str, nn.Module]) -> Self:
        """Return another base of this kind around other modules of the same architecture."""

    def copy(self) -> Self:
        """Return another one with weights of its own, as it would be loaded again from the same files.

        Only of a base to which nothing has been attached and which has not been moved, cast or trained.
        """
        other = self.twin(copy.deepcopy(self.components))
        other.file_hash, other.part_hashes = self.file_hash, dict(self.part_hashes)
        return other

    @property
    def unet(self) -> Any:
        """The denoiser."""
        return self.components["unet"]

    @property
    def device(self) -> torch.device:
        """Where the denoiser lies."""
        return next(self.unet.parameters()).device

    @property
    def prediction(self) -> str:
        """What the denoiser predicts, by diffusers' name, or `flow`."""
        return self.architecture.prediction

    def to(self, device: torch.device | str) -> Self:
        """Move all parts and return self."""
        for module in self.components.values():
            module.to(device)
        return self

    def cast_frozen(self, dtype: torch.dtype) -> None:
        """Cast the frozen weights of denoiser and text encoder; what trains stays as it is, and so the autoencoder.

        Autoencoders overflow in half precision, and latents are encoded once anyway. Use the base under autocast
        afterwards.
        """
        for part, module in self.components.items():
            if part == "vae":
                continue
            for parameter in module.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)

    def lighten(self, integers: bool) -> None:
        """Let the denoiser keep less for the backward pass; see :func:`inlay.base.frozen.lighten`.

        Args:
            integers: also keep its frozen weights as 8-bit integers; from then on the base cannot be saved.
        """
        from inlay.base.frozen import lighten

        lighten(self.unet, integers)
        if integers and "unet" in self.part_hashes:
            self.part_hashes["unet"] += " int8"  # what is drawn with it and kept is not what whole weights draw

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch dropout off inside a ``with`` block."""
        before = {part: module.training for part, module in self.components.items()}
        for module in self.components.values():
            module.eval()
        try:
            yield
        finally:
            for part, module in self.components.items():
                module.train(before[part])

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts => conditions [B, ...]; the empty prompt is the one that guidance leads away from."""
        return self.encode_tokens(self.tokenize(prompts))

    @abstractmethod
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pixels => mean and standard deviation of the posterior over latents, each float32 [B, C, h, w].

        None instead of the latter where latents are certain, as pixels are.
        """

    @abstractmethod
    def image_encoder_hash(self) -> str:
        """Return the SHA-256 of all that :meth:`encode_images` depends on, so that latents can be kept by it."""

    @abstractmethod
    def prompt_reader_hash(self) -> str:
        """Return the SHA-256 of all that :meth:`encode_tokens` depends on, so that conditions can be kept by it."""

    @abstractmethod
    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Prompts => ids.

        Raises:
            ConfigError: the model knows no such class.
        """

    @abstractmethod
    def overlong(self, prompts: Sequence[str]) -> list[str]:
        """Return those prompts of which the model would not see the end."""

    @abstractmethod
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Ids => conditions."""

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """Return the denoiser's prediction [B, C, h, w] for noisy latents under conditions."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents => pixels float32 [B, 3, H, W] in [-1, 1]."""

    @abstractmethod
    def save_pipeline(self, directory: Path) -> None:
        """Write everything in diffusers' layout."""
