"""Parts at their places in the world, and the changes between the two frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inlay.data.tabletop.build import build
from inlay.data.tabletop.parts import Part, tilt
from inlay.data.tabletop.scene import Scene


@dataclass(frozen=True)
class Placed:
    """A part at its place in the world.

    Attributes:
        part: the part.
        centre: where its solid's origin lies, [3].
        back: turns what is seen from `centre` into the solid's own frame, [3, 3].
        outward: turns the solid's normals into the world's, up to their length, [3, 3].
        reach: radius of a ball about `centre` that holds the part.
    """

    part: Part
    centre: np.ndarray
    back: np.ndarray
    outward: np.ndarray
    reach: float


def place(scene: Scene) -> list[Placed]:
    """Return all parts of a scene's things."""
    placed = []
    for thing in scene.things:
        turn = tilt(y=thing.yaw)
        foot = np.array([thing.x, 0.0, thing.z])
        for part in build(thing):
            stretch = np.array(part.stretch)
            axes = turn if part.turn is None else turn @ part.turn
            back = axes.T / (stretch[:, None] * thing.scale)
            centre = foot + thing.scale * (turn @ np.array(part.place))
            reach = thing.scale * part.solid.reach() * float(stretch.max())
            placed.append(Placed(part, centre, back, axes / stretch, reach))
    return placed


def local(matrix: np.ndarray, vectors: tuple) -> tuple:
    """Return `matrix @ vectors` for three arrays, with plain numbers so that float32 stays float32."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    x, y, z = vectors
    return a * x + b * y + c * z, d * x + e * y + f * z, g * x + h * y + i * z
