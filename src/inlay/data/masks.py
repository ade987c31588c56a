"""Masks: where in a picture the loss counts. Where they come from, and what they weigh at the latents' resolution."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from inlay.data.decode import decode_grey, decode_opacity
from inlay.data.settings import MaskSettings
from inlay.data.views import View, covering_size
from inlay.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from inlay.data.sources import Example

ENDINGS = (".mask.png", "-masklabel.png")
"""What the name of a mask's file ends in, after the stem of its picture; the second is OneTrainer's."""


@dataclass(frozen=True)
class Mask:
    """A picture's mask, examined but not kept in memory."""

    sha256: str
    """Hash, in hexadecimal, of the file that it is read from; for a rendered picture, of what draws it."""
    reader: Callable[[], Image.Image] = field(repr=False, compare=False)
    """Returns it: mode L, of the picture's size, white where the loss counts in full."""


def picture_of(name: str) -> str | None:
    """Return the stem of the picture whose mask a file is, by the file's name; None for a file that is no mask."""
    return next((name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending)), None)


def examine_mask(picture: Callable[[], bytes], own: Callable[[], bytes] | None, size: tuple[int, int]) -> Mask:
    """Return a picture's mask: the file of its own, or else what of the picture is opaque.

    Args:
        picture: returns the picture's file.
        own: returns the mask's file; None where there is none.
        size: (width, height) of the picture in pixels, upright.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no mask, it cannot be decoded, or it has another size than the picture.
    """
    read, decoder = (picture, decode_opacity) if own is None else (own, decode_grey)
    content = read()
    mask = decoder(content)
    if mask is None:
        names = " or ".join(f"NAME{ending}" for ending in ENDINGS)
        raise ValueError(f"data.mask asks for its mask: a file {names} beside it, or transparent pixels of its own")
    if mask.size != size:
        raise ValueError(
            f"its mask has {mask.width} x {mask.height} pixels and it has {size[0]} x {size[1]}; make them the same"
        )

    def reader() -> Image.Image:
        again = decoder(read())
        if again is None:
            raise ValueError("its transparency is gone")
        return again

    return Mask(hashlib.sha256(content).hexdigest(), reader)


def mask_weights(example: Example, view: View, settings: MaskSettings, downscale: int) -> Tensor:
    """Return by what the loss at each latent pixel is multiplied.

    A latent pixel's mask is the mean over its pixels. Weights go in a line from ``settings.outside`` to 1 and are then
    scaled to a mean of 1, so that a small subject counts as much as a large one and the loss keeps its size.

    Args:
        example: the picture; without a mask all weights are 1.
        view: the cut of it.
        settings: the section of the run file.
        downscale: pixels a side of one latent pixel.

    Returns:
        float32 [1, height / downscale, width / downscale].

    Raises:
        DataError: the mask can no longer be read.
    """
    import torch
    import torch.nn.functional as F

    side = view.height // downscale, view.width // downscale
    if example.mask is None:
        return torch.ones((1, *side))
    try:
        mask = example.mask.reader()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{example.id}: its mask was there when the run began, and cannot be read now: {error}"
        ) from error
    values = torch.from_numpy(np.array(mask)).to(torch.float32)[None, None] / 255
    height, width = covering_size(example.width, example.height, (view.height, view.width))
    if values.shape[2:] != (height, width):
        values = F.interpolate(values, size=(height, width), mode="bilinear", antialias=True)
    values = values[..., view.top : view.top + view.height, view.left : view.left + view.width]
    if view.flip:
        values = values.flip(-1)
    weights = settings.outside + (1 - settings.outside) * F.adaptive_avg_pool2d(values, side)[0]
    return weights / weights.mean()
