"""What things are made of: each kind of thing as a list of coloured solids.

Things are built about the vertical axis on the ground y = 0, about one unit high, with their front towards +z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inlay.data.tabletop.scene import Design, Thing
from inlay.data.tabletop.shapes import Faces, Ring, Solid, ball, box, can, cone, gable, pyramid

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
IDENTITY = np.eye(3)


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


def _ball(coat: Coat) -> Body:
    return Body([coat.part(ball(0.5), (0, 0.5, 0))], 1.0, 0.22, 0.3, 0.46)


def _cube(coat: Coat) -> Body:
    return Body([coat.part(box(0.82, 0.82, 0.82), (0, 0.41, 0))], 0.82, 0.26, 0.35, 0.56)


def _cone(coat: Coat) -> Body:
    return Body([coat.part(cone(0.46, 0.0, 1.05), (0, 0.525, 0))], 0.92, 0.12, 0.38, 0.3)


def _can(coat: Coat) -> Body:
    rims = [Part(Ring(0.325, 0.025), (0, y, 0), (0.72, 0.73, 0.76), shine=0.9) for y in (0.03, 0.92)]
    return Body([coat.part(can(0.34, 0.92), (0, 0.47, 0)), *rims], 0.94, 0.24, 0.6, 0.35)


def _ring(coat: Coat) -> Body:
    return Body([coat.part(Ring(0.37, 0.14), (0, 0.51, 0), turn=UPRIGHT)], 1.02, 0.14, 0.2, 0.36)


def _pyramid(coat: Coat) -> Body:
    return Body([coat.part(pyramid(0.98, 0.92), (0, 0.46, 0))], 0.8, 0.12, 0.34, 0.42)


def _egg(coat: Coat) -> Body:
    lower = coat.part(ball(0.37, 0.42, -1.0, 0.0), (0, 0.42, 0), shine=0.5)
    upper = coat.part(ball(0.37, 0.6, 0.0, 1.0), (0, 0.42, 0), shine=0.5)
    return Body([lower, upper], 1.0, 0.2, 0.34, 0.37)


def _mug(coat: Coat) -> Body:
    handle = coat.part(Ring(0.22, 0.06), (0.4, 0.44, 0), plain=True, turn=UPRIGHT, shine=0.6)
    wall = coat.part(can(0.38, 0.84, lid=False), (0, 0.42, 0), shine=0.6)
    rim = coat.part(Ring(0.37, 0.03), (0, 0.84, 0), plain=True, shine=0.6)
    drink = Part(can(0.37, 0.02), (0, 0.7, 0), (0.25, 0.13, 0.06), shine=0.5)
    return Body([handle, wall, rim, drink], 0.86, 0.32, 0.3, 0.4)


def _bottle(coat: Coat) -> Body:
    parts = [
        coat.part(can(0.24, 0.62), (0, 0.31, 0), shine=0.8),
        coat.part(ball(0.24, 0.22, 0.0, 1.0), (0, 0.62, 0), plain=True, shine=0.8),
        coat.part(can(0.085, 0.36), (0, 0.95, 0), plain=True, shine=0.8),
        Part(can(0.1, 0.1), (0, 1.13, 0), (0.80, 0.68, 0.45)),
    ]
    return Body(parts, 1.15, 0.12, 0.45, 0.25)


def _tree(coat: Coat) -> Body:
    parts = [
        Part(cone(0.12, 0.09, 0.36), (0, 0.18, 0), WOOD, shine=0.05),
        coat.part(cone(0.42, 0.12, 0.36), (0, 0.44, 0), shine=0.1),
        coat.part(cone(0.34, 0.08, 0.34), (0, 0.7, 0), shine=0.1),
        coat.part(cone(0.25, 0.0, 0.38), (0, 0.98, 0), shine=0.1),
    ]
    return Body(parts, 1.1, 0.1, 0.2, 0.14)


def _house(coat: Coat) -> Body:
    parts = [
        coat.part(box(0.86, 0.52, 0.7), (0, 0.26, 0), shine=0.1),
        coat.part(gable(1.04, 0.46, 0.82), (0, 0.75, 0), 0.6, plain=True, shine=0.1),
        Part(box(0.2, 0.34, 0.04), (0, 0.17, 0.36), (0.36, 0.22, 0.12), shine=0.1),
        *[Part(box(0.16, 0.16, 0.04), (x, 0.31, 0.36), (0.99, 0.93, 0.62), glow=0.35) for x in (-0.27, 0.27)],
        Part(box(0.14, 0.34, 0.14), (0.28, 0.85, -0.08), (0.52, 0.44, 0.42), shine=0.1),
    ]
    return Body(parts, 0.94, 0.16, 0.3, 0.5)


def _mushroom(coat: Coat) -> Body:
    parts = [
        Part(cone(0.22, 0.15, 0.56), (0, 0.28, 0), CREAM, shine=0.15),
        coat.part(ball(0.45, 0.46, 0.0, 1.0), (0, 0.5, 0), shine=0.5),
    ]
    return Body(parts, 0.95, 0.2, 0.28, 0.2)


def _lamp(coat: Coat) -> Body:
    parts = [
        Part(can(0.26, 0.07), (0, 0.035, 0), DARK),
        Part(can(0.035, 0.6), (0, 0.35, 0), DARK),
        coat.part(cone(0.42, 0.22, 0.46), (0, 0.82, 0), shine=0.1, glow=0.3),
    ]
    return Body(parts, 1.05, 0.22, 0.3, 0.07)


def _snowman(coat: Coat) -> Body:
    parts = [
        coat.part(ball(0.34), (0, 0.31, 0), shine=0.15),
        coat.part(ball(0.235), (0, 0.72, 0), shine=0.15),
        coat.part(ball(0.165), (0, 1.02, 0), plain=True, shine=0.15),
        Part(cone(0.045, 0.0, 0.2), (0, 1.01, 0.24), (0.98, 0.45, 0.05), turn=UPRIGHT),
        *[Part(ball(0.032), (x, 1.07, 0.145), (0.03, 0.03, 0.03)) for x in (-0.065, 0.065)],
    ]
    return Body(parts, 1.16, 0.13, 0.88, 0.16)


def _chair(coat: Coat) -> Body:
    legs = [
        coat.part(box(0.09, 0.46, 0.09), (x, 0.23, z), 0.9, plain=True) for x in (-0.27, 0.27) for z in (-0.25, 0.25)
    ]
    seat = coat.part(box(0.66, 0.09, 0.62), (0, 0.48, 0))
    back = coat.part(box(0.66, 0.56, 0.08), (0, 0.78, -0.27))
    return Body([*legs, seat, back], 1.06, 0.16, 0.3, 0.42)


def _cake(coat: Coat) -> Body:
    parts = [
        Part(can(0.58, 0.04), (0, 0.02, 0), (0.88, 0.88, 0.92), shine=0.7),
        coat.part(can(0.48, 0.34), (0, 0.21, 0), shine=0.2),
        Part(Ring(0.45, 0.05), (0, 0.38, 0), CREAM, shine=0.2),
        coat.part(can(0.3, 0.26), (0, 0.51, 0), shine=0.2),
        Part(Ring(0.28, 0.04), (0, 0.64, 0), CREAM, shine=0.2),
        Part(ball(0.085), (0, 0.72, 0), (0.80, 0.06, 0.12), shine=0.9),
    ]
    return Body(parts, 0.66, 0.2, 0.5, 0.32)


def _cactus(coat: Coat) -> Body:
    parts = [
        Part(cone(0.22, 0.29, 0.28), (0, 0.14, 0), (0.72, 0.38, 0.22), shine=0.1),
        coat.part(can(0.155, 0.56), (0, 0.54, 0), shine=0.15),
        coat.part(ball(0.155), (0, 0.82, 0), shine=0.15),
        coat.part(ball(0.06, 0.2), (0.24, 0.56, 0), plain=True, turn=tilt(z=1.2), shine=0.15),
        coat.part(ball(0.085, 0.21), (0.37, 0.72, 0), plain=True, shine=0.15),
        coat.part(ball(0.06, 0.2), (-0.24, 0.46, 0), plain=True, turn=tilt(z=-1.2), shine=0.15),
        coat.part(ball(0.08, 0.18), (-0.36, 0.6, 0), plain=True, shine=0.15),
    ]
    return Body(parts, 0.95, 0.13, 0.42, 0.17)


MAKERS: dict[str, Callable[[Coat], Body]] = {
    "ball": _ball,
    "cube": _cube,
    "cone": _cone,
    "can": _can,
    "ring": _ring,
    "pyramid": _pyramid,
    "egg": _egg,
    "mug": _mug,
    "bottle": _bottle,
    "tree": _tree,
    "house": _house,
    "mushroom": _mushroom,
    "lamp": _lamp,
    "snowman": _snowman,
    "chair": _chair,
    "cake": _cake,
    "cactus": _cactus,
}
"""How each kind of thing but the toy is made."""


def accessory_parts(kind: str, paint: RGB, body: Body) -> list[Part]:
    """Return the parts of a hat, a scarf or a flag that fits a thing."""
    if kind == "hat":
        radius = max(body.head, 0.11)
        brim = Part(can(radius * 1.65, 0.045), (0, body.top - 0.02, 0), paint, shine=0.15)
        crown = Part(can(radius, radius * 1.3 + 0.06), (0, body.top + radius * 0.65, 0), paint, shine=0.15)
        band = Part(can(radius * 1.05, 0.05), (0, body.top + 0.05, 0), (0.12, 0.12, 0.14), shine=0.15)
        return [brim, crown, band]
    if kind == "scarf":
        end = tilt(x=0.12, z=0.12)
        return [
            Part(Ring(body.collar, 0.062), (0, body.neck, 0), paint, shine=0.1),
            Part(box(0.12, 0.34, 0.05), (0.1, body.neck - 0.16, body.collar + 0.03), paint, turn=end, shine=0.1),
        ]
    pole = Part(can(0.022, 0.5), (0, body.top + 0.22, 0), (0.85, 0.85, 0.85))
    return [pole, Part(box(0.34, 0.22, 0.02), (0.18, body.top + 0.35, 0), paint, shine=0.1)]


_TOY_BODIES: dict[str, tuple[Solid, float]] = {
    "ball": (ball(0.34), 0.32),
    "box": (box(0.54, 0.5, 0.46), 0.25),
    "can": (can(0.28, 0.5), 0.25),
    "cone": (cone(0.37, 0.14, 0.56), 0.28),
    "egg": (ball(0.27, 0.34), 0.32),
}
_TOY_HEADS: dict[str, tuple[Solid, float]] = {
    "ball": (ball(0.22), 0.19),
    "box": (box(0.4, 0.34, 0.36), 0.17),
    "can": (can(0.2, 0.32), 0.16),
    "cone": (cone(0.25, 0.02, 0.42), 0.19),
    "egg": (ball(0.17, 0.26), 0.23),
    "ring": (Ring(0.16, 0.075), 0.21),
}


def toy(design: Design, coat: Coat | None) -> Body:
    """Return a toy. With a coat the whole toy wears its colour, parts told apart by shade only."""

    def wear(colour: str, shade: float, solid: Solid, place: RGB, plain: bool = True, **others) -> Part:
        if coat is not None:
            return coat.part(solid, place, shade, plain=plain, **others)
        return Part(solid, place, PAINTS[colour], **others)

    extras = dict(design.extras)
    solid, half = _TOY_BODIES[design.body]
    lift = 0.1 if "feet" in extras else 0.0
    middle = lift + half
    parts = [wear(design.body_colour, 1.0, solid, (0, middle, 0), plain=False)]
    neck = middle + half
    solid, above = _TOY_HEADS[design.head]
    centre = neck + above - 0.04
    upright = UPRIGHT if design.head == "ring" else None
    parts.append(wear(design.head_colour, 0.82, solid, (0, centre, 0), turn=upright))
    front = {"box": 0.18, "egg": 0.145, "can": 0.19, "cone": 0.15, "ring": 0.06}.get(design.head, 0.19)
    eyes = centre + (0.16 if design.head == "ring" else 0.03)
    for x in (-0.085, 0.085):
        parts.append(Part(ball(0.05), (x, eyes, front), WHITE, shine=0.6))
        parts.append(Part(ball(0.028), (x, eyes, front + 0.032), (0.03, 0.03, 0.03), shine=0.9))
    for side in (-1, 1):
        if "ears" in extras:
            parts.append(wear(extras["ears"], 0.65, ball(0.105), (side * 0.19, centre + above * 0.8, 0)))
        if "horns" in extras:
            slope = tilt(z=-side * 0.5)
            parts.append(
                wear(extras["horns"], 0.65, cone(0.07, 0.0, 0.26), (side * 0.17, centre + above, 0), turn=slope)
            )
        if "arms" in extras:
            slope = tilt(z=side * 0.9)
            parts.append(wear(extras["arms"], 0.75, ball(0.075, 0.21), (side * 0.36, middle + 0.1, 0.04), turn=slope))
        if "wings" in extras:
            flat = (1.0, 1.0, 0.3)
            slope = tilt(z=-side * 0.7)
            part = wear(
                extras["wings"], 0.75, ball(0.15, 0.27), (side * 0.4, middle + 0.16, -0.1), turn=slope, stretch=flat
            )
            parts.append(part)
        if "feet" in extras:
            parts.append(wear(extras["feet"], 0.65, ball(0.13, 0.1), (side * 0.16, 0.1, 0.16)))
    if "belt" in extras:
        radius = {"box": 0.35, "ball": 0.33, "egg": 0.265, "can": 0.27, "cone": 0.25}[design.body]
        if design.body == "box":
            parts.append(wear(extras["belt"], 0.6, box(0.58, 0.11, 0.5), (0, middle, 0)))
        else:
            parts.append(wear(extras["belt"], 0.6, Ring(radius, 0.05), (0, middle, 0)))
    if "antenna" in extras:
        parts.append(Part(can(0.018, 0.24), (0, centre + above + 0.08, 0), DARK))
        parts.append(wear(extras["antenna"], 0.65, ball(0.075), (0, centre + above + 0.22, 0)))
    if "tail" in extras:
        slope = tilt(z=0.9)
        parts.append(wear(extras["tail"], 0.7, ball(0.08, 0.26), (-0.4, lift + 0.22, -0.12), turn=slope))
    return Body(parts, centre + above - 0.03, 0.17, neck, 0.19)


def build(thing: Thing) -> list[Part]:
    """Return all parts of a thing with what it wears, in its own frame."""
    coat = None
    if thing.colour is not None:
        coat = Coat(PAINTS[thing.colour], SECOND.get(thing.colour, WHITE), thing.pattern)
    if thing.kind == "toy":
        assert thing.design is not None
        body = toy(thing.design, coat)
    else:
        assert coat is not None
        body = MAKERS[thing.kind](coat)
    parts = list(body.parts)
    if thing.accessory is not None and thing.accessory_colour is not None:
        parts += accessory_parts(thing.accessory, PAINTS[thing.accessory_colour], body)
    return parts


__all__ = ["MAKERS", "PAINTS", "Body", "Coat", "Faces", "Part", "build", "tilt", "toy"]
