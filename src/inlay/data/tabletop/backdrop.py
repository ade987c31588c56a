"""The surface with the shadows on it, and what is behind."""

from __future__ import annotations

import numpy as np

from inlay.data.tabletop import ground
from inlay.data.tabletop.camera import DISTANCE, Camera, axis, shrink, span
from inlay.data.tabletop.placed import Placed, local
from inlay.data.tabletop.scene import Scene

COARSE = 2
"""Samples along each side of a pixel for the surface and the sky."""
LAMP = 0.09
"""Half width of the light as seen from the things, which makes the shadows soft."""


def _horizon(scene: Scene, camera: Camera, count: int) -> tuple[int, float]:
    """Return the first of `count` rows that shows the surface, with the sky above it, and its place in the picture."""
    rim = float(camera.project(np.array([0.0, 0.0, -scene.edge]))[1])
    rows = span(-1, rim, count)
    return count - (rows.stop - rows.start), rim


def shadow(placed: list[Placed], scene: Scene, camera: Camera, size: int) -> np.ndarray:
    """Return two shares, [2, size, size]: of direct light on the surface, and of ambient light near things.

    Both are 1 where only the sky is seen, whatever may stand there.
    """
    sun = ground.sun_direction(scene.time, scene.sun)
    # The row above the surface's first is blurred into it.
    top = max(_horizon(scene, camera, size * COARSE)[0] // COARSE - 1, 0)
    across, up = axis(size, 1)[None, :], -axis(size, 1)[:, None]
    eye, forward, above = camera.eye, camera.forward, camera.up
    dy = np.minimum(forward[1] * DISTANCE + above[1] * up, -1e-3).astype(np.float32)
    dz = (forward[2] * DISTANCE + above[2] * up).astype(np.float32)
    t = (-eye[1] / dy).astype(np.float32)
    x, z = t * across, (eye[2] + t * dz).astype(np.float32)
    side = np.cross(sun, [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side)
    rise = np.cross(side, sun)
    corners = np.array([(0.7, 0.35), (-0.35, 0.7), (-0.7, -0.35), (0.35, -0.7)]) * LAMP
    lamps = np.stack([sun + a * side + b * rise for a, b in corners]).astype(np.float32)
    hidden = np.zeros((4, size, size), bool)
    contact = np.ones((size, size), np.float32)
    lamps = tuple(lamps.T[:, :, None, None])
    for item, (left, right, bottom, upper) in zip(placed, _shadow_windows(placed, sun, camera), strict=True):
        columns, rows = span(left, right, size), span(-upper, -bottom, size)
        rows = slice(max(rows.start, top), rows.stop)
        if columns.start >= columns.stop or rows.start >= rows.stop:
            continue
        shift = (
            x[rows, columns] - np.float32(item.centre[0]),
            np.float32(-item.centre[1]),
            z[rows] - np.float32(item.centre[2]),
        )
        origin = local(item.back, shift)
        hidden[:, rows, columns] |= item.part.solid.blocks(origin, local(item.back, lamps))
        if item.centre[1] < item.reach * 1.6:
            square = (x[top:] - item.centre[0]) ** 2 + (z[top:] - item.centre[2]) ** 2 + max(item.centre[1], 0.02) ** 2
            radius = item.reach * 0.8
            contact[top:] *= 1 - 0.55 * np.minimum(radius**2 / square.astype(np.float32), 1) ** 2
    lit = 1 - hidden.mean(0, dtype=np.float32)
    return np.stack([_soften(lit), contact])


def _shadow_windows(placed: list[Placed], sun: np.ndarray, camera: Camera) -> list[list[float]]:
    """Return left, right, bottom, top in the picture of the shadow on the ground of each part's ball."""
    centres = np.array([item.centre for item in placed])
    length = centres[:, 1] / sun[1]
    middle = centres - sun * length[:, None]
    reach = np.array([item.reach for item in placed]) * (1.05 + LAMP * 2) + LAMP * length
    flat = np.array([sun[0], 0, sun[2]]) / np.hypot(sun[0], sun[2])
    over = np.array([-flat[2], 0, flat[0]])
    along, across = (reach / sun[1])[:, None] * flat, reach[:, None] * over
    box = np.stack([middle + a * along + b * across for a in (-1, 1) for b in (-1, 1)])
    box[..., 1] = 0
    view = camera.project(box)
    return np.concatenate([view.min(0), view.max(0)], -1)[:, [0, 2, 1, 3]].tolist()


def _soften(field: np.ndarray) -> np.ndarray:
    """Blur [h, w] by a quarter, a half, a quarter along both sides."""
    padded = np.pad(field, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16


def backdrop(scene: Scene, camera: Camera, lit: np.ndarray, contact: np.ndarray, size: int) -> np.ndarray:
    """Return surface and sky, linear RGB [size, size, 3]."""
    light = ground.LIGHTS[scene.time]
    count = size * COARSE
    across, up = axis(size, COARSE)[None, :], -axis(size, COARSE)[:, None]
    first, rim = _horizon(scene, camera, count)
    picture = np.empty((count, count, 3), np.float32)
    eye, forward, above = camera.eye, camera.forward, camera.up
    below = up[first:]
    t = -eye[1] / np.minimum(forward[1] * DISTANCE + above[1] * below, -1e-3)
    x = (t * across).astype(np.float32)
    z = np.broadcast_to((eye[2] + t * (forward[2] * DISTANCE + above[2] * below)).astype(np.float32), x.shape)
    paint = ground.linear(
        ground.surface_paint(scene.surface, x + np.float32(scene.texture % 7 * 0.31), z, scene.texture)
    )
    sun, ambient = np.asarray(light.sun, np.float32), np.asarray(light.ambient, np.float32)
    share = np.repeat(np.repeat(lit, COARSE, 0), COARSE, 1)[first:, :, None]
    near = np.repeat(np.repeat(contact, COARSE, 0), COARSE, 1)[first:, :, None]
    level = np.float32(0.35 + 0.65 * np.sin(light.height))
    # A pool of light about the things keeps the eye on them.
    pool = (1.08 - 0.16 * np.minimum(x * x + z * z, 3.0))[..., None]
    picture[first:] = paint * (ambient * near + sun * level * share * (0.5 + 0.5 * near)) * pool
    if scene.surface in ground.OUTDOOR:
        haze = np.clip(-z / np.float32(scene.edge), 0, 1)[..., None] ** 3 * np.float32(0.3)
        picture[first:] += haze * (np.asarray(light.horizon, np.float32) - picture[first:])
    elif first < count:
        picture[first : first + COARSE] *= 0.6  # the far edge of a table
    if first > 0:
        height = up[:first] - np.float32(rim)
        picture[:first] = ground.sky(light, scene.surface, scene.time, across, height, scene.sun, scene.texture)
    return shrink(picture, COARSE)
