"""The vehicles, which only the domain "vehicles" shows. They drive along x and are seen from the side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inlay.data.tabletop.parts import CREAM, DARK, SIDEWAYS, UPRIGHT, WOOD, Body, Coat, Part, tilt
from inlay.data.tabletop.shapes import Faces, ball, box, can, cone

GLASS = (0.62, 0.80, 0.92)
TYRE = (0.10, 0.10, 0.11)
RIM = (0.75, 0.76, 0.78)
LAMP = (1.0, 0.93, 0.62)


def _wheels(places: tuple[float, ...], radius: float, depth: float) -> list[Part]:
    """Return pairs of wheels, one on each side, at places along x; the far side is never seen and has no rims."""
    parts = []
    for x in places:
        for side in (-1, 1):
            z = side * depth / 2
            parts.append(Part(can(radius, 0.12), (x, radius, z), TYRE, turn=UPRIGHT, shine=0.1))
        parts.append(Part(can(radius * 0.5, 0.03), (x, radius, depth / 2 + 0.06), RIM, turn=UPRIGHT, shine=0.7))
    return parts


def _slope(below: float, above: float, height: float, depth: float) -> Faces:
    """Return a cabin: a box along x whose ends lean inwards, from one length to another."""
    lean = (below - above) / 2
    length = float(np.hypot(height, lean))
    side, up = height / length, lean / length
    normals = ((side, up, 0.0), (-side, up, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0))
    offset = side * (below + above) / 4
    radius = float(np.sqrt(below**2 + height**2 + depth**2) / 2)
    return Faces(normals, (offset, offset, height / 2, height / 2, depth / 2, depth / 2), radius)


def _car(coat: Coat) -> Body:
    parts = [
        *_wheels((-0.36, 0.36), 0.16, 0.5),
        coat.part(box(1.24, 0.26, 0.52), (0, 0.29, 0), shine=0.8),
        coat.part(_slope(0.82, 0.5, 0.26, 0.46), (-0.04, 0.55, 0), plain=True, shine=0.8),
        *[Part(_slope(0.27, 0.22, 0.16, 0.02), (x, 0.54, 0.235), GLASS, shine=0.9) for x in (-0.2, 0.12)],
        Part(_slope(0.84, 0.52, 0.18, 0.38), (-0.04, 0.54, 0), GLASS, shine=0.9),
        *[Part(ball(0.06), (0.6, 0.32, z), LAMP, glow=0.5) for z in (-0.17, 0.17)],
    ]
    return Body(parts, 0.68, 0.16, 0.3, 0.4)


def _truck(coat: Coat) -> Body:
    parts = [
        *_wheels((-0.42, -0.1, 0.42), 0.15, 0.46),
        Part(box(1.24, 0.08, 0.46), (0, 0.2, 0), DARK),
        coat.part(box(0.82, 0.56, 0.52), (-0.22, 0.52, 0)),
        Part(box(0.36, 0.44, 0.48), (0.42, 0.44, 0), CREAM, shine=0.6),
        Part(box(0.22, 0.17, 0.5), (0.44, 0.54, 0), GLASS, shine=0.9),
        Part(ball(0.05), (0.6, 0.3, 0.16), LAMP, glow=0.5),
    ]
    return Body(parts, 0.8, 0.16, 0.3, 0.4)


def _bus(coat: Coat) -> Body:
    windows = [Part(box(0.19, 0.17, 0.02), (x, 0.6, 0.235), GLASS, shine=0.9) for x in (-0.46, -0.22, 0.02, 0.26)]
    parts = [
        *_wheels((-0.36, 0.36), 0.14, 0.4),
        coat.part(box(1.28, 0.6, 0.46), (0, 0.44, 0), shine=0.6),
        *windows,
        Part(box(0.14, 0.4, 0.02), (0.5, 0.44, 0.235), GLASS, shine=0.9),
        Part(box(0.02, 0.26, 0.36), (0.64, 0.55, 0), GLASS, shine=0.9),
    ]
    return Body(parts, 0.74, 0.16, 0.3, 0.4)


def _boat(coat: Coat) -> Body:
    # Half an egg on its side makes the hull; the deck is its cut.
    hull = ball(0.3, 0.28, -1.0, 0.0)
    sail = Faces(
        ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.857, 0.515, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)),
        (0.0, 0.0, 0.39, 0.02, 0.02),
        0.78,
    )
    parts = [
        coat.part(hull, (0, 0.28, 0), stretch=(2.1, 1.0, 0.85), shine=0.5),
        Part(can(0.29, 0.03), (0, 0.285, 0), WOOD, stretch=(2.1, 1.0, 0.85), shine=0.1),
        Part(can(0.025, 0.9), (-0.06, 0.72, 0), WOOD),
        Part(sail, (-0.02, 0.38, 0), CREAM, shine=0.05),
        Part(sail, (-0.1, 0.38, 0), CREAM, turn=tilt(y=np.pi), stretch=(0.7, 0.8, 1.0), shine=0.05),
    ]
    return Body(parts, 0.98, 0.1, 0.3, 0.3)


def _rocket(coat: Coat) -> Body:
    fins = [
        Part(
            _slope(0.3, 0.08, 0.3, 0.05),
            (0.22 * np.cos(angle), 0.2, -0.22 * np.sin(angle)),
            (0.75, 0.12, 0.12) if coat.paint[0] < 0.6 else (0.25, 0.28, 0.36),
            turn=tilt(y=angle),
        )
        for angle in (0.0, np.pi / 2, np.pi, -np.pi / 2)
    ]
    parts = [
        Part(cone(0.16, 0.1, 0.12), (0, 0.08, 0), DARK, shine=0.6),
        *fins,
        coat.part(can(0.22, 0.6), (0, 0.42, 0), shine=0.6),
        coat.part(ball(0.22, 0.46, 0.0, 1.0), (0, 0.72, 0), shine=0.6),
        Part(can(0.1, 0.04), (0, 0.66, 0.21), RIM, turn=UPRIGHT),
        Part(can(0.075, 0.05), (0, 0.66, 0.215), GLASS, turn=UPRIGHT, shine=0.9),
    ]
    return Body(parts, 1.12, 0.1, 0.4, 0.23)


def _train(coat: Coat) -> Body:
    parts = [
        *_wheels((-0.4, -0.1, 0.2, 0.46), 0.13, 0.4),
        Part(box(1.24, 0.08, 0.42), (0, 0.24, 0), DARK),
        coat.part(can(0.21, 0.76), (0.2, 0.48, 0), turn=SIDEWAYS, shine=0.6),
        coat.part(box(0.4, 0.56, 0.46), (-0.38, 0.54, 0), shine=0.6),
        Part(box(0.48, 0.06, 0.54), (-0.38, 0.84, 0), DARK),
        Part(box(0.18, 0.18, 0.48), (-0.38, 0.66, 0), GLASS, shine=0.9),
        Part(cone(0.06, 0.1, 0.26), (0.4, 0.76, 0), DARK),
        Part(ball(0.09), (0.12, 0.7, 0), (0.85, 0.66, 0.25), shine=0.9),
        Part(can(0.17, 0.06), (0.59, 0.48, 0), DARK, turn=SIDEWAYS),
        Part(ball(0.06), (0.63, 0.48, 0), LAMP, glow=0.5),
    ]
    return Body(parts, 0.87, 0.16, 0.3, 0.4)


VEHICLE_MAKERS: dict[str, Callable[[Coat], Body]] = {
    "car": _car,
    "truck": _truck,
    "bus": _bus,
    "boat": _boat,
    "rocket": _rocket,
    "train": _train,
}
"""How each vehicle is made."""
