"""Which pixels of a picture the model sees, and those pixels as a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from inlay.data.settings import MaskSettings
    from inlay.data.sources import Example

PIXELS_VERSION = 1
"""Part of every cache key: raised when :func:`pixels` comes to return other values."""


@dataclass(frozen=True)
class View:
    """A cut of a picture: scaled until it just covers ``height`` x ``width``, cropped at (top, left), mirrored or not.

    ``top`` and ``left`` count pixels of the scaled picture.
    """

    height: int
    width: int
    top: int
    left: int
    flip: bool

    def __str__(self) -> str:
        return f"{self.height}x{self.width}+{self.top}+{self.left}{'m' if self.flip else ''}"


def covering_size(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a picture scaled, aspect kept, to just cover ``size`` = (height, width)."""
    # Integers: a ratio in floating point could round one side to a pixel less than asked for.
    if size[0] * width >= size[1] * height:
        return size[0], max(size[1], (2 * width * size[0] + height) // (2 * height))
    return max(size[0], (2 * height * size[1] + width) // (2 * width)), size[1]


def center_view(example: Example, size: tuple[int, int], flip: bool = False) -> View:
    """Return the middle of a picture at ``size`` = (height, width)."""
    return placed_view(example, size, 0.5, 0.5, flip)


def placed_view(example: Example, size: tuple[int, int], down: float, right: float, flip: bool) -> View:
    """Return the cut that lies ``down`` and ``right``, both in [0, 1], of the room there is around it."""
    height, width = covering_size(example.width, example.height, size)
    return View(*size, top=_place(height - size[0], down), left=_place(width - size[1], right), flip=flip)


def _place(room: int, share: float) -> int:
    # room + 1 places of equal probability; a half lands on the middle one.
    return min(int(share * (room + 1)), room)


def pixels(example: Example, view: View) -> torch.Tensor:
    """Read a picture and return what ``view`` shows of it.

    Scaling is antialiased bicubic (Keys, 1981, a = -0.5, the filter widened when shrinking, as Pillow's) in float32
    without the rounding to 8 bits that Pillow applies after each pass; overshoot is clamped.

    Returns:
        float32 [3, height, width] in [-1, 1].

    Raises:
        DataError: the file has gone or changed since it was examined.
    """
    picture = torch.from_numpy(np.array(example.open())).permute(2, 0, 1)
    return _seen(picture, example, view, "bicubic").div(127.5).sub(1).contiguous()


def mask_weights(example: Example, view: View, settings: MaskSettings, downscale: int) -> torch.Tensor:
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
    side = view.height // downscale, view.width // downscale
    mask = example.open_mask()
    if mask is None:
        return torch.ones((1, *side))
    shown = _seen(torch.from_numpy(np.array(mask))[None], example, view, "bilinear") / 255
    weights = settings.outside + (1 - settings.outside) * F.adaptive_avg_pool2d(shown, side)
    return weights / weights.mean()


def _seen(values: torch.Tensor, example: Example, view: View, mode: str) -> torch.Tensor:
    """Return what ``view`` shows of a picture's values uint8 [C, H, W]: float32 [C, height, width] in [0, 255]."""
    height, width = covering_size(example.width, example.height, (view.height, view.width))
    values = values.to(torch.float32)
    if values.shape[1:] != (height, width):
        values = F.interpolate(values[None], size=(height, width), mode=mode, antialias=True)[0].clamp(0, 255)
    values = values[:, view.top : view.top + view.height, view.left : view.left + view.width]
    return values.flip(-1) if view.flip else values
