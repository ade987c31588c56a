"""How each kind of thing that pretraining shows, but the toy, is made.

Things are built about the vertical axis on the ground y = 0, about one unit high, with their front towards +z.
"""

from __future__ import annotations

from collections.abc import Callable

from inlay.data.tabletop.parts import CREAM, DARK, UPRIGHT, WOOD, Body, Coat, Part, tilt
from inlay.data.tabletop.shapes import Ring, ball, box, can, cone, gable, pyramid


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
