"""From a scene to a picture: rays, light and shadow.

The surface and sky are sampled two by two a pixel, the things three by three and only where they are. World frame:
x to the right, y up from the surface, z towards the camera; the things stand about the origin. The picture is two
units high at the distance of the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inlay.data.tabletop import ground, sketch
from inlay.data.tabletop.build import build
from inlay.data.tabletop.parts import Part, tilt
from inlay.data.tabletop.scene import Scene
from inlay.data.tabletop.shapes import CELL, Solid

DISTANCE = 3.2
"""From the camera to the point that it looks at."""
AIM = 0.43
"""Height of that point."""
FINE = 3
"""Samples along each side of a pixel for things."""
COARSE = 2
"""Samples along each side of a pixel for the surface and the sky."""


@dataclass(frozen=True)
class Placed:
    """A part at its place in the world: `point = centre + forward @ local`, and back again by `back`."""

    part: Part
    solid: Solid
    centre: np.ndarray
    back: np.ndarray
    tilt: np.ndarray
    reach: float


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from."""

    eye: np.ndarray
    forward: np.ndarray
    up: np.ndarray

    @classmethod
    def at(cls, elevation: float) -> Camera:
        """Return the camera at an angle above the surface, in radians."""
        forward = np.array([0.0, -np.sin(elevation), -np.cos(elevation)])
        up = np.array([0.0, np.cos(elevation), -np.sin(elevation)])
        return cls(np.array([0.0, AIM, 0.0]) - forward * DISTANCE, forward, up)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return picture coordinates [..., 2] (right, up; 1 is half the picture) of points [..., 3]."""
        away = points - self.eye
        factor = DISTANCE / (away @ self.forward)
        return np.stack([away[..., 0] * factor, away @ self.up * factor], -1)

    def window(self, centre: np.ndarray, radius: float) -> tuple[float, float, float, float]:
        """Return left, right, bottom, top of a ball in the picture, a little too wide."""
        depth = float((centre - self.eye) @ self.forward)
        x, y = self.project(centre)
        half = DISTANCE * radius / max(depth - radius, 0.2)
        return x - half, x + half, y - half, y + half


def _place(scene: Scene) -> list[Placed]:
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
            placed.append(Placed(part, part.solid, centre, back, axes / stretch, reach))
    return placed


def _local(matrix: np.ndarray, vectors: tuple) -> tuple:
    """Return `matrix @ vectors` for three arrays, with plain numbers so that float32 stays float32."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    x, y, z = vectors
    return a * x + b * y + c * z, d * x + e * y + f * z, g * x + h * y + i * z


def _sun(scene: Scene) -> np.ndarray:
    height = ground.LIGHTS[scene.time].height
    return np.array([np.cos(scene.sun) * np.cos(height), np.sin(height), np.sin(scene.sun) * np.cos(height)])


def _linear(paint: np.ndarray) -> np.ndarray:
    """Paint => light; a gamma of two is near enough to sRGB and cheap."""
    return paint * paint


def _axis(size: int, samples: int) -> np.ndarray:
    """Return the picture coordinates of sample columns, [size * samples]."""
    return ((np.arange(size * samples, dtype=np.float32) + 0.5) / (size * samples) * 2 - 1).astype(np.float32)


def _span(low: float, high: float, count: int) -> slice:
    """Return the samples of an axis of `count` that lie between two picture coordinates."""
    start = int(np.floor((low + 1) / 2 * count))
    stop = int(np.ceil((high + 1) / 2 * count)) + 1
    return slice(min(max(start, 0), count), min(max(stop, 0), count))


def _shadow(placed: list[Placed], sun: np.ndarray, camera: Camera, size: int, spread: float) -> np.ndarray:
    """Return the share of direct light on the surface, [size, size], and dim the places of contact."""
    across, up = _axis(size, 1)[None, :], -_axis(size, 1)[:, None]
    eye, forward, above = camera.eye, camera.forward, camera.up
    dy = np.minimum(forward[1] * DISTANCE + above[1] * up, -1e-3).astype(np.float32)
    dz = (forward[2] * DISTANCE + above[2] * up).astype(np.float32)
    t = (-eye[1] / dy).astype(np.float32)
    x, z = t * across, (eye[2] + t * dz).astype(np.float32)
    side = np.cross(sun, [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side)
    rise = np.cross(side, sun)
    corners = np.array([(0.7, 0.35), (-0.35, 0.7), (-0.7, -0.35), (0.35, -0.7)]) * spread
    lamps = np.stack([sun + a * side + b * rise for a, b in corners]).astype(np.float32)
    hidden = np.zeros((4, size, size), bool)
    contact = np.ones((size, size), np.float32)
    for item in placed:
        # The shadow of the ball that holds the part, as a box on the ground, as a window in the picture.
        length = item.centre[1] / sun[1]
        middle = item.centre - sun * length
        reach = item.reach * (1.05 + spread * 2) + spread * length
        stretch = reach / sun[1]
        flat = np.array([sun[0], 0, sun[2]]) / np.hypot(sun[0], sun[2])
        over = np.array([-flat[2], 0, flat[0]])
        box = np.array([middle + a * stretch * flat + b * reach * over for a in (-1, 1) for b in (-1, 1)])
        box[:, 1] = 0
        view = camera.project(box)
        columns = _span(view[:, 0].min(), view[:, 0].max(), size)
        rows = _span(-view[:, 1].max(), -view[:, 1].min(), size)
        if columns.start >= columns.stop or rows.start >= rows.stop:
            continue
        shift = (
            x[rows, columns] - np.float32(item.centre[0]),
            np.float32(-item.centre[1]),
            z[rows] - np.float32(item.centre[2]),
        )
        origin = _local(item.back, shift)
        direction = _local(item.back, (lamps[:, 0, None, None], lamps[:, 1, None, None], lamps[:, 2, None, None]))
        hidden[:, rows, columns] |= np.isfinite(item.solid.hit(origin, direction))
        if item.centre[1] < item.reach * 1.6:
            square = (x - item.centre[0]) ** 2 + (z - item.centre[2]) ** 2 + max(item.centre[1], 0.02) ** 2
            radius = item.reach * 0.8
            contact *= 1 - 0.55 * np.minimum(radius**2 / square.astype(np.float32), 1) ** 2
    lit = 1 - hidden.mean(0, dtype=np.float32)
    return np.stack([_soften(lit), contact])


def _soften(field: np.ndarray) -> np.ndarray:
    """Blur [h, w] by a quarter, a half, a quarter along both sides."""
    padded = np.pad(field, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16


def _backdrop(scene: Scene, camera: Camera, lit: np.ndarray, contact: np.ndarray, size: int) -> np.ndarray:
    """Return surface and sky, linear RGB [size, size, 3]."""
    light = ground.LIGHTS[scene.time]
    count = size * COARSE
    across, up = _axis(size, COARSE)[None, :], -_axis(size, COARSE)[:, None]
    rim = float(camera.project(np.array([0.0, 0.0, -scene.edge]))[1])
    rows = _span(-1, rim, count)
    first = count - (rows.stop - rows.start)  # the first row of the surface; above it is the sky
    first = int(np.clip(first, 0, count))
    picture = np.empty((count, count, 3), np.float32)
    eye, forward, above = camera.eye, camera.forward, camera.up
    below = up[first:]
    t = -eye[1] / np.minimum(forward[1] * DISTANCE + above[1] * below, -1e-3)
    x = (t * across).astype(np.float32)
    z = np.broadcast_to((eye[2] + t * (forward[2] * DISTANCE + above[2] * below)).astype(np.float32), x.shape)
    paint = _linear(ground.surface_paint(scene.surface, x + np.float32(scene.texture % 7 * 0.31), z, scene.texture))
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
    return picture.reshape(size, COARSE, size, COARSE, 3).mean((1, 3))


@dataclass
class Sight:
    """What the rays of a window of the picture meet first.

    Attributes:
        rows, columns: the window in fine samples, multiples of `FINE`.
        depth: ray parameter, inf where nothing is met, [h, w].
        owner: index of the part, -1 for none, [h, w].
    """

    rows: slice
    columns: slice
    depth: np.ndarray
    owner: np.ndarray


def _look(placed: list[Placed], camera: Camera, size: int) -> Sight:
    count = size * FINE
    windows = np.array([camera.window(item.centre, item.reach) for item in placed])
    columns = _span(windows[:, 0].min(), windows[:, 1].max(), count)
    rows = _span(-windows[:, 3].max(), -windows[:, 2].min(), count)
    columns = slice(columns.start // FINE * FINE, -(-columns.stop // FINE) * FINE)
    rows = slice(rows.start // FINE * FINE, -(-rows.stop // FINE) * FINE)
    across, up = _axis(size, FINE), -_axis(size, FINE)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    depth, owner = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int16)
    for index, (item, (left, right, bottom, top)) in enumerate(zip(placed, windows, strict=True)):
        cols, lines = _span(left, right, count), _span(-top, -bottom, count)
        if cols.start >= cols.stop or lines.start >= lines.stop:
            continue
        ahead = (item.back @ camera.forward * DISTANCE).tolist()
        right_axis, up_axis = item.back[:, 0].tolist(), (item.back @ camera.up).tolist()
        u, v = across[cols][None, :], up[lines][:, None]
        direction = tuple((a + r * u) + w * v for a, r, w in zip(ahead, right_axis, up_axis, strict=True))
        origin = tuple((item.back @ (camera.eye - item.centre)).tolist())
        found = item.solid.hit(origin, direction)
        window = (
            slice(lines.start - rows.start, lines.stop - rows.start),
            slice(cols.start - columns.start, cols.stop - columns.start),
        )
        closer = found < depth[window]
        np.copyto(depth[window], found, where=closer)
        np.copyto(owner[window], np.int16(index), where=closer)
    return Sight(rows, columns, depth, owner)


def _pattern(item: Placed, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return where the second colour shows, bool [n], at points in the solid's frame."""
    u, v = item.solid.pattern_place(x, y, z)
    name = item.part.pattern
    if name == "striped":
        return np.floor(v / np.float32(CELL / 1.6) + 0.25) % 2 > 0
    if name == "checkered":
        return (np.floor(u / np.float32(CELL)) + np.floor(v / np.float32(CELL) + 0.5)) % 2 > 0
    row = np.floor(v / np.float32(CELL * 1.25) + 0.5)
    du = (u / np.float32(CELL * 1.25) + 0.5 * (row % 2)) % 1 - 0.5
    dv = v / np.float32(CELL * 1.25) + 0.5 - row - 0.5
    return du * du + dv * dv < 0.105


def _shade(
    placed: list[Placed], sight: Sight, scene: Scene, camera: Camera, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return linear light [h, w, 3] of the window, zero where nothing is met, and the normals [h, w, 3]."""
    light = ground.LIGHTS[scene.time]
    sun = _sun(scene)
    shape = sight.depth.shape
    lines, cols = np.nonzero(sight.owner >= 0)
    owner, t = sight.owner[lines, cols], sight.depth[lines, cols]
    u, v = _axis(size, FINE)[sight.columns][cols], -_axis(size, FINE)[sight.rows][lines]
    eye, forward, above = camera.eye.tolist(), camera.forward.tolist(), camera.up.tolist()
    ray = (u, forward[1] * DISTANCE + above[1] * v, forward[2] * DISTANCE + above[2] * v)
    point = (t * ray[0], eye[1] + t * ray[1], eye[2] + t * ray[2])
    paint = np.empty((t.size, 3), np.float32)
    normal = np.empty((3, t.size), np.float32)
    shine, glow, metal = np.empty(t.size, np.float32), np.zeros(t.size, np.float32), np.zeros(t.size, bool)
    order = np.argsort(owner, kind="stable")
    stops = np.searchsorted(owner[order], np.arange(len(placed) + 1))
    for index, item in enumerate(placed):
        mine = order[stops[index] : stops[index + 1]]
        if not mine.size:
            continue
        shift = tuple(p[mine] - float(c) for p, c in zip(point, item.centre, strict=True))
        local = _local(item.back, shift)
        normal[:, mine] = _local(item.tilt, item.solid.normal(*local))
        base = _linear(np.array(item.part.paint, np.float32))
        if item.part.pattern == "plain":
            paint[mine] = base
        else:
            second = _linear(np.array(item.part.second, np.float32))
            paint[mine] = np.where(_pattern(item, *local)[:, None], second, base)
        shine[mine], glow[mine], metal[mine] = item.part.shine, item.part.glow, item.part.metal
    normal /= np.sqrt((normal * normal).sum(0)) + np.float32(1e-9)
    length = np.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    view = tuple(-r / length for r in ray)
    facing = normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2]
    flip = np.where(facing < 0, np.float32(-1), np.float32(1))  # the inside of an open body
    normal *= flip
    facing = np.abs(facing)
    sx, sy, sz = sun.tolist()
    towards = normal[0] * sx + normal[1] * sy + normal[2] * sz
    lit = np.clip(towards, 0, 1)
    # Rays towards the light, from a little off the surface.
    start = tuple(p + 4e-3 * n for p, n in zip(point, normal, strict=True))
    ask = np.nonzero(lit > 0)[0]
    free = np.ones(ask.size, bool)
    start = tuple(p[ask] for p in start)
    for item in placed:
        away = tuple(p - float(c) for p, c in zip(start, item.centre, strict=True))
        along = away[0] * sx + away[1] * sy + away[2] * sz
        square = away[0] * away[0] + away[1] * away[1] + away[2] * away[2]
        some = np.nonzero((square - along * along < item.reach**2) & (along < item.reach))[0]
        if some.size:
            origin = _local(item.back, tuple(p[some] for p in away))
            direction = tuple(np.float32(d) for d in item.back @ sun)
            free[some] &= ~np.isfinite(item.solid.hit(origin, direction))
    lit[ask] *= free
    half = tuple(w + s for w, s in zip(view, (sx, sy, sz), strict=True))
    size_half = np.sqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2)
    gleam = np.clip((normal[0] * half[0] + normal[1] * half[1] + normal[2] * half[2]) / size_half, 0, 1)
    for _ in range(5):
        gleam = gleam * gleam  # the 32nd power
    gleam *= shine * (lit > 0)
    rim = (1 - facing) ** 3 * shine * 0.35
    # The surface throws light back from below; close to it there is less of everything.
    lift = 0.5 + 0.5 * normal[1]
    near = np.clip(0.62 + point[1] * 1.6, 0, 1)
    ambient, direct = np.asarray(light.ambient, np.float32), np.asarray(light.sun, np.float32)
    diffuse = ambient * (near * (0.62 + 0.5 * lift))[:, None] + direct * (lit * 0.95)[:, None]
    colour = paint * (diffuse + glow[:, None]) + direct * (gleam * 0.8)[:, None] + ambient * rim[:, None]
    if metal.any():
        colour[metal] = _mirror(
            scene, paint[metal], normal[:, metal], tuple(w[metal] for w in view), gleam[metal], lit[metal]
        )
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


def _sketch(scene: Scene, backdrop: np.ndarray, sight: Sight, colour: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return the picture in pencil, uint8 [size, size, 3], drawn at the fine samples."""
    size = backdrop.shape[0]
    fine = np.repeat(np.repeat(backdrop, FINE, 0), FINE, 1)
    things, lines = np.zeros(fine.shape[:2], bool), np.zeros(fine.shape[:2], bool)
    window = (sight.rows, sight.columns)
    things[window] = sight.owner >= 0
    fine[window] = np.where(things[window][..., None], colour, fine[window])
    lines[window] = sketch.edges(sight.owner, normals)
    drawn = sketch.draw_over(np.sqrt(np.clip(fine, 0, 1)), lines, things, scene.texture)
    small = drawn.reshape(size, FINE, size, FINE, 3).mean((1, 3))
    return (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)


def render(scene: Scene, size: int = 64) -> np.ndarray:
    """Return the picture of a scene, uint8 [size, size, 3].

    Args:
        scene: what to show.
        size: height and width in pixels.
    """
    with np.errstate(all="ignore"):
        placed = _place(scene)
        camera = Camera.at(scene.elevation)
        lit, contact = _shadow(placed, _sun(scene), camera, size, 0.09)
        sight = _look(placed, camera, size)
        picture = _backdrop(scene, camera, lit, contact, size)
        colour, normals = _shade(placed, sight, scene, camera, size)
        # Over-bright samples are cut before the mean, so that a highlight has a clean edge.
        colour = np.minimum(colour, 1.3)
        if scene.style == "sketch":
            return _sketch(scene, picture, sight, colour, normals)
        rows = slice(sight.rows.start // FINE, sight.rows.stop // FINE)
        columns = slice(sight.columns.start // FINE, sight.columns.stop // FINE)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        fine = colour.reshape(height, FINE, width, FINE, 3).mean((1, 3))
        cover = (sight.owner >= 0).reshape(height, FINE, width, FINE).mean((1, 3), dtype=np.float32)[..., None]
        picture[rows, columns] = picture[rows, columns] * (1 - cover) + fine
        return (np.sqrt(np.clip(picture, 0, 1)) * 255 + 0.5).astype(np.uint8)
