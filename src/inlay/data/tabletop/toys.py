"""Toys, built from a design."""

from __future__ import annotations

from inlay.data.tabletop.parts import DARK, PAINTS, RGB, UPRIGHT, WHITE, Body, Coat, Part, tilt
from inlay.data.tabletop.scene import Design
from inlay.data.tabletop.shapes import Ring, Solid, ball, box, can, cone

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
