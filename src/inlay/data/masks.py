"""Masks: where in a picture the loss counts, and where that is read from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from inlay.data.decode import decode_grey, decode_opacity

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
