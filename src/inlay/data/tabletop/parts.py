"""The coloured solids that things are made of, their paints, and the body that wears hats and scarves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inlay.data.tabletop.shapes import Solid

RGB = tuple[float, float, float]

PAINTS: dict[str, RGB] = {
    "red": (0.86, 0.10, 0.10),
    "orange": (1.0, 0.53, 0.04),
    "yellow": (0.98, 0.87, 0.12),
    "green": (0.13, 0.62, 0.20),
    "blue": (0.12, 0.30, 0.88),
    "purple": (0.50, 0.16, 0.70),
    "pink": (0.99, 0.55, 0.75),
    "brown": (0.38, 0.20, 0.09),
    "white": (0.96, 0.96, 0.96),
    "black": (0.09, 0.09, 0.10),
}
"""The colours that captions name, as sRGB in [0, 1]."""

SECOND: dict[str, RGB] = {
    "white": (0.50, 0.53, 0.60),
    "yellow": (0.45, 0.25, 0.10),
    "pink": (0.72, 0.16, 0.42),
}
"""The second colour of a pattern where white would not show."""

WHITE: RGB = (0.96, 0.96, 0.96)
WOOD: RGB = (0.50, 0.33, 0.18)
CREAM: RGB = (0.94, 0.88, 0.76)
DARK: RGB = (0.22, 0.22, 0.25)
GOLD: RGB = (0.95, 0.70, 0.22)


@dataclass(frozen=True)
class Part:
    """A coloured solid in its thing's frame.

    Attributes:
        place: where the solid's origin lies.
        paint: sRGB in [0, 1].
        second: the other colour of the pattern.
        pattern: one of `inlay.data.tabletop.scene.PATTERNS`.
        turn: rotation from the solid's frame to the thing's, [3, 3].
        stretch: factors along the solid's own axes.
        shine: strength of the highlight.
        glow: light of its own, as a share of the paint.
        metal: whether it mirrors its surroundings as polished metal does.
    """

    solid: Solid
    place: RGB
    paint: RGB
    second: RGB = WHITE
    pattern: str = "plain"
    turn: np.ndarray | None = None
    stretch: RGB = (1.0, 1.0, 1.0)
    shine: float = 0.35
    glow: float = 0.0
    metal: bool = False


@dataclass(frozen=True)
class Coat:
    """The colour and pattern that a caption names, laid on the main solids of a thing."""

    paint: RGB
    second: RGB
    pattern: str

    def part(self, solid: Solid, place: RGB, shade: float = 1.0, plain: bool = False, **others) -> Part:
        """Return a part with this coat, darkened by `shade`."""
        paint = (self.paint[0] * shade, self.paint[1] * shade, self.paint[2] * shade)
        return Part(solid, place, paint, self.second, "plain" if plain else self.pattern, **others)


@dataclass(frozen=True)
class Body:
    """A thing's parts, and where a hat or a scarf goes: the top's height and radius, the neck's height and radius."""

    parts: list[Part]
    top: float
    head: float
    neck: float
    collar: float


def tilt(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Return the rotation [3, 3] by angles in radians about z, then x, then y."""
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


UPRIGHT = tilt(x=np.pi / 2)
"""Turns a solid's axis from up to forward: a ring then stands like a wheel seen from the front."""
SIDEWAYS = tilt(z=np.pi / 2)
"""Turns a solid's axis from up to sideways."""
