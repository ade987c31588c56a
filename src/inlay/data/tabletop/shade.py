"""Light on the things: diffuse and reflected light, their shadows on each other, patterns and polished metal."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from inlay.data.tabletop import ground
from inlay.data.tabletop.camera import DISTANCE, Camera, axis
from inlay.data.tabletop.placed import Placed, local
from inlay.data.tabletop.scene import Scene
from inlay.data.tabletop.shapes import CELL
from inlay.data.tabletop.sight import FINE, Sight


def _pattern(item: Placed, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return where the second colour shows, bool [n], at points in the solid's frame."""
    u, v = item.part.solid.pattern_place(x, y, z)
    name = item.part.pattern
    if name == "striped":
        return np.floor(v / np.float32(CELL / 1.6) + 0.25) % 2 > 0
    if name == "checkered":
        return (np.floor(u / np.float32(CELL)) + np.floor(v / np.float32(CELL) + 0.5)) % 2 > 0
    row = np.floor(v / np.float32(CELL * 1.25) + 0.5)
    du = (u / np.float32(CELL * 1.25) + 0.5 * (row % 2)) % 1 - 0.5
    dv = v / np.float32(CELL * 1.25) + 0.5 - row - 0.5
    return du * du + dv * dv < 0.105


@dataclass
class Coats:
    """What the n points that are seen are made of.

    Attributes:
        normal: unit normals, [3, n].
        paint: linear RGB, [n, 3].
        shine, glow: as of `Part`, [n].
        metal: bool, [n].
    """

    normal: np.ndarray
    paint: np.ndarray
    shine: np.ndarray
    glow: np.ndarray
    metal: np.ndarray


def _coats(placed: list[Placed], owner: np.ndarray, point: tuple) -> Coats:
    """Return what lies at points that are sorted by their part."""
    count = owner.size
    paint = np.empty((count, 3), np.float32)
    normal = np.empty((3, count), np.float32)
    shine, glow, metal = np.empty(count, np.float32), np.zeros(count, np.float32), np.zeros(count, bool)
    stops = np.searchsorted(owner, np.arange(len(placed) + 1)).tolist()
    for item, (start, stop) in zip(placed, pairwise(stops), strict=True):
        if start == stop:
            continue
        mine = slice(start, stop)
        shift = tuple(p[mine] - float(c) for p, c in zip(point, item.centre, strict=True))
        inside = local(item.back, shift)
        for axis_normal, found in zip(normal, local(item.outward, item.part.solid.normal(*inside)), strict=True):
            axis_normal[mine] = found
        base = ground.linear(np.array(item.part.paint, np.float32))
        if item.part.pattern == "plain":
            paint[mine] = base
        else:
            second = ground.linear(np.array(item.part.second, np.float32))
            paint[mine] = np.where(_pattern(item, *inside)[:, None], second, base)
        shine[mine], glow[mine], metal[mine] = item.part.shine, item.part.glow, item.part.metal
    normal /= np.sqrt((normal * normal).sum(0)) + np.float32(1e-9)
    return Coats(normal, paint, shine, glow, metal)


def _free(placed: list[Placed], point: tuple, normal: np.ndarray, asked: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """Return whether no part stands between the points that are asked about and the light, bool [n]."""
    sx, sy, sz = sun.tolist()
    # From a little off the surface, so that a point does not hide itself.
    start = tuple(p + 4e-3 * n for p, n in zip(point, normal, strict=True))
    ask = np.nonzero(asked)[0]
    free = np.ones(ask.size, bool)
    start = tuple(p[ask] for p in start)
    for item in placed:
        away = tuple(p - float(c) for p, c in zip(start, item.centre, strict=True))
        along = away[0] * sx + away[1] * sy + away[2] * sz
        square = away[0] * away[0] + away[1] * away[1] + away[2] * away[2]
        some = np.nonzero((square - along * along < item.reach**2) & (along < item.reach))[0]
        if some.size:
            origin = local(item.back, tuple(p[some] for p in away))
            direction = tuple(np.float32(d) for d in item.back @ sun)
            free[some] &= ~item.part.solid.blocks(origin, direction)
    result = np.ones(asked.size, bool)
    result[ask] = free
    return result


def shade(placed: list[Placed], sight: Sight, scene: Scene, camera: Camera, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return linear light [h, w, 3] of the window, zero where nothing is met, and the normals [h, w, 3]."""
    light = ground.LIGHTS[scene.time]
    sun = ground.sun_direction(scene.time, scene.sun)
    shape = sight.depth.shape
    lines, cols = np.nonzero(sight.owner >= 0)
    owner = sight.owner[lines, cols]
    order = np.argsort(owner, kind="stable")
    lines, cols, owner = lines[order], cols[order], owner[order]
    t = sight.depth[lines, cols]
    u, v = axis(size, FINE)[sight.columns][cols], -axis(size, FINE)[sight.rows][lines]
    eye, forward, above = camera.eye.tolist(), camera.forward.tolist(), camera.up.tolist()
    ray = (u, forward[1] * DISTANCE + above[1] * v, forward[2] * DISTANCE + above[2] * v)
    point = (t * ray[0], eye[1] + t * ray[1], eye[2] + t * ray[2])
    coat = _coats(placed, owner, point)
    normal = coat.normal
    length = np.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    view = tuple(-r / length for r in ray)
    facing = normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2]
    flip = np.where(facing < 0, np.float32(-1), np.float32(1))  # the inside of an open body
    normal *= flip
    facing = np.abs(facing)
    sx, sy, sz = sun.tolist()
    towards = normal[0] * sx + normal[1] * sy + normal[2] * sz
    lit = np.clip(towards, 0, 1)
    lit *= _free(placed, point, normal, lit > 0, sun)
    half = tuple(w + s for w, s in zip(view, (sx, sy, sz), strict=True))
    size_half = np.sqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2)
    gleam = np.clip((normal[0] * half[0] + normal[1] * half[1] + normal[2] * half[2]) / size_half, 0, 1)
    for _ in range(5):
        gleam = gleam * gleam  # the 32nd power
    gleam *= coat.shine * (lit > 0)
    rim = (1 - facing) ** 3 * coat.shine * 0.35
    # The surface throws light back from below; close to it there is less of everything.
    lift = 0.5 + 0.5 * normal[1]
    near = np.clip(0.62 + point[1] * 1.6, 0, 1)
    ambient, direct = np.asarray(light.ambient, np.float32), np.asarray(light.sun, np.float32)
    diffuse = ambient * (near * (0.62 + 0.5 * lift))[:, None] + direct * (lit * 0.95)[:, None]
    colour = coat.paint * (diffuse + coat.glow[:, None]) + direct * (gleam * 0.8)[:, None] + ambient * rim[:, None]
    metal = coat.metal
    if metal.any():
        seen = tuple(w[metal] for w in view)
        colour[metal] = _mirror(scene, coat.paint[metal], normal[:, metal], seen, gleam[metal], lit[metal])
    result = np.zeros((*shape, 3), np.float32)
    result[lines, cols] = colour
    normals = np.zeros((*shape, 3), np.float32)
    if scene.style == "sketch":
        normals[lines, cols] = normal.T
    return result, normals


def _mirror(
    scene: Scene, paint: np.ndarray, normal: np.ndarray, view: tuple, gleam: np.ndarray, lit: np.ndarray
) -> np.ndarray:
    """Return polished metal: the paint times what lies in the mirror's direction, bright above and dark below."""
    light = ground.LIGHTS[scene.time]
    facing = normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2]
    up = 2 * facing * normal[1] - view[1]
    level = np.clip(0.62 + 1.7 * up, 0, 1)
    bands = 0.36 + 1.05 * level + 0.35 * np.sin(7 * up + 3 * normal[0])
    white = np.asarray(light.sun, np.float32) * 0.6 + np.asarray(light.ambient, np.float32) * 1.2
    return paint * white * (np.clip(bands, 0.12, 2) * (0.7 + 0.4 * lit))[:, None] + white * (gleam * 1.5)[:, None]
