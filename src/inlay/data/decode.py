"""Bytes of a picture file => 8-bit RGB as a person would see it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image, ImageColor, ImageOps

T = TypeVar("T")

SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".jxl",
        ".pbm",
        ".pgm",
        ".png",
        ".ppm",
        ".psd",
        ".svg",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""Names that mean a picture. Some of them cannot be decoded here: they are reported rather than overlooked."""


def decode(content: bytes, background: str) -> Image.Image:
    """Decode a picture fully and return it upright, opaque and in RGB.

    The EXIF orientation is applied, transparency is composited on ``background``, 16-bit grey is rounded to 8 bits,
    and of an animated picture the first frame is taken. Colour profiles are not applied.

    Args:
        content: the file's bytes.
        background: a colour that Pillow knows by name, or ``#rrggbb``.

    Raises:
        ValueError: the bytes are not a complete picture of a kind that can be read; the message says why.
    """
    return _decoded(content, lambda picture: _to_rgb(picture, background))


def decode_grey(content: bytes) -> Image.Image:
    """Decode a picture fully and return it upright, in 8-bit grey (mode L); transparent pixels are black.

    Raises:
        ValueError: as :func:`decode`.
    """
    return _decoded(content, lambda picture: _to_rgb(picture, "black").convert("L"))


def decode_opacity(content: bytes) -> Image.Image | None:
    """Decode a picture fully and return its opacity, upright (mode L, 0 for transparent); None where it has none.

    Raises:
        ValueError: as :func:`decode`.
    """

    def opacity(picture: Image.Image) -> Image.Image | None:
        return picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None

    return _decoded(content, opacity)


def _decoded(content: bytes, read: Callable[[Image.Image], T]) -> T:
    """Return what ``read`` makes of a picture that is loaded in full and upright."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            return read(ImageOps.exif_transpose(picture))
    except Image.UnidentifiedImageError:
        reason = (
            "the file is empty" if not content else "not a picture format that can be read; convert it to PNG or JPEG"
        )
        raise ValueError(reason) from None
    except MemoryError:
        raise
    # Pillow's plug-ins raise whatever a broken file happens to provoke: OSError, SyntaxError, struct.error, KeyError...
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _to_rgb(picture: Image.Image, background: str) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no stated range; convert the file to 8 or 16 bits a channel")
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit integer pixels have no stated range; convert the file to 8 or 16 bits a channel")
        # Pillow's own conversion clips at 255 and turns 16-bit pictures white; 65535 / 255 = 257.
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        canvas = Image.new("RGBA", picture.size, (*ImageColor.getrgb(background)[:3], 255))
        return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")
