"""Features of the image tower that ships with the embedded base.

The tower is the vision half of a CLIP trained on the rendered world; it measures pictures of that world, not photos.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError

if TYPE_CHECKING:
    import torch

NAME = "inlay-tabletop-clip"
"""The extractor's name in results: a Frechet distance on its features is called FD-inlay-tabletop-clip."""
SIDE = 64
"""Height and width that the tower sees, in pixels."""


def embedded_tower() -> Path:
    """Return the folder of the tower that ships with inlay.

    Raises:
        DataError: this installation lacks it.
    """
    folder = Path(str(resources.files("inlay"))) / "base" / "tabletop" / "image_encoder"
    if not (folder / "config.json").exists():
        raise DataError(f"The embedded image tower is missing: {folder}. Install inlay with its package data.")
    return folder


def fingerprint(folder: Path | None = None) -> str:
    """Return the sha256 of a tower's weights: distances compare only where it is equal."""
    folder = folder or embedded_tower()
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def resize(images: NDArray[np.uint8], side: int = SIDE) -> torch.Tensor:
    """Return uint8 images [N, H, W, 3] as floats [N, 3, side, side] in [-1, 1].

    Where the size differs, by an antialiased bicubic filter (Parmar et al. 2022 on why it must be), unclipped values
    brought back into range; images of the right size are not filtered.

    Raises:
        DataError: the array is not uint8 [N, H, W, 3].
    """
    import torch

    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise DataError(f"Images must be uint8 [N, H, W, 3]; given: {images.dtype} {list(images.shape)}.")
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    if pixels.shape[-2:] != (side, side):
        pixels = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    return pixels.clamp(-1, 1)


@lru_cache(maxsize=2)
def _tower(folder: Path):
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection.from_pretrained(folder).eval().float()


def image_features(images: NDArray[np.uint8], batch: int = 128, folder: Path | None = None) -> NDArray[np.float32]:
    """Return the tower's projected features of a batch of images, in float32 on the CPU.

    Args:
        images: uint8 [N, H, W, 3] of any size; see `resize`.
        batch: images a pass.
        folder: a CLIP image tower in the layout of transformers; the embedded one by default.

    Returns:
        Features [N, D], not normalised.

    Raises:
        DataError: the array is no batch of images, or the embedded tower is missing.
    """
    import torch

    tower = _tower(folder or embedded_tower())
    found = [np.zeros((0, tower.config.projection_dim), np.float32)]
    with torch.inference_mode():
        for begin in range(0, len(images), batch):
            pixels = resize(images[begin : begin + batch], int(tower.config.image_size))  # pyright: ignore[reportArgumentType]
            found.append(tower(pixel_values=pixels).image_embeds.numpy())
    return np.concatenate(found)
