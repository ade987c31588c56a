"""Solids that a ray meets in closed form: round ones, those with flat faces, and rings.

Shape legend: rays are given as three origins and three directions (scalars or float32 arrays that broadcast
against each other) in the solid's own frame; the answer is the ray parameter of the first hit, inf for none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

Rays = tuple  # three numbers or arrays
CELL = 0.2
"""Width of a pattern's cell, in units of length."""
NEAREST = 1e-3
"""Hits nearer than this are the ray's own start."""


@dataclass(frozen=True)
class Round:
    """A body about the y axis whose squared radius is `a + b y + c y^2` between two heights.

    Ball, egg, can, cone, and the waist of a vase are all of this form. A lid that is left out opens the body, and
    its inside is seen.
    """

    a: float
    b: float
    c: float
    low: float
    high: float
    floor: bool = True
    lid: bool = True

    def reach(self) -> float:
        """Return the radius of a ball about the origin that holds the body."""
        heights = np.linspace(self.low, self.high, 9)
        squares = np.maximum(self.a + self.b * heights + self.c * heights**2, 0) + heights**2
        return float(np.sqrt(squares.max())) * 1.02

    def _meetings(self, origin: Rays, direction: Rays) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield where rays meet each surface, the side twice, and which of these meetings are real."""
        ox, oy, oz = origin
        dx, dy, dz = direction
        square = dx * dx + dz * dz - self.c * dy * dy
        half = ox * dx + oz * dz - (self.c * oy + 0.5 * self.b) * dy
        rest = ox * ox + oz * oz - (self.a + self.b * oy + self.c * oy * oy)
        root = np.sqrt(half * half - square * rest)  # nan where the ray misses: every comparison is then false
        inverse = 1 / square
        one, two = (-half - root) * inverse, (-half + root) * inverse
        for t in (one, two):
            y = oy + t * dy
            yield t, (y >= self.low) & (y <= self.high) & (t > NEAREST)
        for y, present in ((self.low, self.floor), (self.high, self.lid)):
            limit = self.a + self.b * y + self.c * y * y
            if present and limit > 1e-5:
                t = (y - oy) / dy
                x, z = ox + t * dx, oz + t * dz
                yield t, (x * x + z * z <= limit) & (t > NEAREST)

    def hit(self, origin: Rays, direction: Rays) -> np.ndarray:
        """Return where rays first meet the body."""
        meetings = self._meetings(origin, direction)
        t, real = next(meetings)
        best = np.where(real, t, np.float32(np.inf))
        for t, real in meetings:
            real &= t < best
            np.copyto(best, t, where=real)
        return best

    def blocks(self, origin: Rays, direction: Rays) -> np.ndarray:
        """Return which rays meet the body at all."""
        meetings = self._meetings(origin, direction)
        _, blocked = next(meetings)
        for _, real in meetings:
            blocked |= real
        return blocked

    def normal(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the outward normal, not yet of unit length, at points of the surface."""
        up = -(self.c * y + 0.5 * self.b)
        side = x * x + z * z - (self.a + self.b * y + self.c * y * y)
        inside = side < -2e-3 * max(self.a, 1e-3)
        lid = inside & (y > self.high - 1e-2)
        floor = inside & (y < self.low + 1e-2)
        flat = lid | floor
        return np.where(flat, 0, x), np.where(lid, 1, np.where(floor, -1, up)), np.where(flat, 0, z)

    def pattern_place(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return two coordinates on the surface, in units of length near the widest place."""
        radius = float(np.sqrt(max(self.a + self.b * m + self.c * m * m for m in np.linspace(self.low, self.high, 5))))
        turns = max(round(np.pi * radius / CELL) * 2, 4)  # an even number of cells meets without a seam
        return np.arctan2(x, z) * np.float32(turns * CELL / np.pi / 2), y


@dataclass(frozen=True)
class Faces:
    """A convex body: all points with `normals @ p <= offsets`."""

    normals: tuple[tuple[float, float, float], ...]
    offsets: tuple[float, ...]
    radius: float

    def reach(self) -> float:
        """Return the radius of a ball about the origin that holds the body."""
        return self.radius

    def _stay(self, origin: Rays, direction: Rays) -> tuple[np.ndarray, np.ndarray]:
        """Return where rays have entered all half spaces, and where they first leave one."""
        enter, leave = np.full((), NEAREST, np.float32), np.full((), 1e6, np.float32)
        for normal, offset in zip(self.normals, self.offsets, strict=True):
            towards = _along(direction, normal)
            t = (offset - _along(origin, normal)) / towards
            enter = np.where(towards < 0, np.maximum(enter, t), enter)
            leave = np.where(towards > 0, np.minimum(leave, t), leave)
        return enter, leave

    def hit(self, origin: Rays, direction: Rays) -> np.ndarray:
        """Return where rays first meet the body."""
        enter, leave = self._stay(origin, direction)
        return np.where(enter < leave, enter, np.float32(np.inf))

    def blocks(self, origin: Rays, direction: Rays) -> np.ndarray:
        """Return which rays meet the body at all."""
        enter, leave = self._stay(origin, direction)
        return enter < leave

    def normal(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the outward normal at points of the surface: that of the face that lies nearest."""
        normals = np.array(self.normals, np.float32)
        depth = np.stack([x * n[0] + y * n[1] + z * n[2] - h for n, h in zip(normals, self.offsets, strict=True)])
        chosen = normals[depth.argmax(0)]
        return chosen[:, 0], chosen[:, 1], chosen[:, 2]

    def pattern_place(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return two coordinates on the surface, in units of length."""
        nx, ny, nz = (np.abs(n) for n in self.normal(x, y, z))
        u = np.where(nx > nz, z, x)
        v = np.where((ny > nx) & (ny > nz), z, y)
        return u, v


@dataclass(frozen=True)
class Ring:
    """A ring in the plane y = 0 about the y axis: `large` to the middle of the tube, `small` the tube's radius."""

    large: float
    small: float

    def reach(self) -> float:
        """Return the radius of a ball about the origin that holds the body."""
        return self.large + self.small

    def hit(self, origin: Rays, direction: Rays) -> np.ndarray:
        """Return where rays first meet the body: steps of the known distance to it, on the rays that pass near."""
        ox, oy, oz, dx, dy, dz = np.broadcast_arrays(*origin, *direction)
        best = np.full(ox.shape, np.inf, np.float32)
        length = np.sqrt(dx * dx + dy * dy + dz * dz)
        inverse = 1 / length
        reach = self.large + self.small
        half = (ox * dx + oy * dy + oz * dz) * inverse
        root = np.sqrt(half * half - (ox * ox + oy * oy + oz * oz - reach * reach))
        one, two = (-self.small - oy) / dy, (self.small - oy) / dy
        start = np.maximum(np.maximum(-half - root, np.minimum(one, two) * length), np.float32(2e-3))
        stop = np.minimum(-half + root, np.maximum(one, two) * length)
        near = np.nonzero(start < stop)
        if not near[0].size:
            return best
        t, stop = start[near], stop[near]
        inverse = inverse[near]
        ox, oy, oz = ox[near], oy[near], oz[near]
        dx, dy, dz = dx[near] * inverse, dy[near] * inverse, dz[near] * inverse
        for _ in range(14):
            x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
            gap = np.sqrt(x * x + z * z) - self.large
            gap = np.sqrt(gap * gap + y * y) - self.small
            t = t + gap
        best[near] = np.where((gap < 0.03 * self.small) & (t < stop + self.small) & (t > 0), t * inverse, np.inf)
        return best

    def blocks(self, origin: Rays, direction: Rays) -> np.ndarray:
        """Return which rays meet the body at all."""
        return np.isfinite(self.hit(origin, direction))

    def normal(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the outward normal, not yet of unit length, at points of the surface."""
        factor = 1 - self.large / np.maximum(np.sqrt(x * x + z * z), 1e-6)
        return x * factor, y, z * factor

    def pattern_place(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return two coordinates on the surface: around the tube, and along the ring."""
        around = np.arctan2(y, np.sqrt(x * x + z * z) - self.large) * np.float32(2 * CELL / np.pi / 2)
        return around, np.arctan2(x, z) * np.float32(10 * CELL / np.pi / 2)


Solid = Round | Faces | Ring


def _along(vectors: Rays, normal: tuple[float, float, float]) -> np.ndarray:
    """Return `vectors @ normal` without the terms that are 0, of which normals of boxes have two."""
    pairs = zip(vectors, normal, strict=True)
    return reduce(add, (part if weight == 1 else part * weight for part, weight in pairs if weight))


def ball(radius: float, height: float | None = None, low: float = -1.0, high: float = 1.0) -> Round:
    """A ball, or an ellipsoid with its own half height, cut at two fractions of that half height."""
    height = radius if height is None else height
    return Round(radius**2, 0.0, -((radius / height) ** 2), low * height, high * height)


def can(radius: float, height: float, floor: bool = True, lid: bool = True) -> Round:
    """An upright cylinder about the origin."""
    return Round(radius**2, 0.0, 0.0, -height / 2, height / 2, floor, lid)


def cone(below: float, above: float, height: float, floor: bool = True, lid: bool = True) -> Round:
    """An upright cone, or a stump of one, about the origin, from one radius to another."""
    middle, slope = (below + above) / 2, (above - below) / height
    return Round(middle**2, 2 * middle * slope, slope**2, -height / 2, height / 2, floor, lid)


def box(width: float, height: float, depth: float) -> Faces:
    """A box about the origin."""
    x, y, z = width / 2, height / 2, depth / 2
    normals = ((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0))
    return Faces(normals, (x, x, y, y, z, z), float(np.sqrt(x * x + y * y + z * z)))


def pyramid(width: float, height: float) -> Faces:
    """A pyramid on a square, its base at -height / 2."""
    length = float(np.hypot(height, width / 2))
    up, side = width / 2 / length, height / length
    normals = ((side, up, 0.0), (-side, up, 0.0), (0.0, up, side), (0.0, up, -side), (0.0, -1.0, 0.0))
    offset = up * height / 2
    radius = float(np.sqrt(height**2 / 4 + width**2 / 2))
    return Faces(normals, (offset, offset, offset, offset, height / 2), radius)


def gable(width: float, height: float, depth: float) -> Faces:
    """A roof with two slopes, its ridge along z, its base at -height / 2."""
    length = float(np.hypot(height, width / 2))
    up, side = width / 2 / length, height / length
    normals = ((side, up, 0.0), (-side, up, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0))
    offset = up * height / 2
    radius = float(np.sqrt(height**2 / 4 + width**2 / 4 + depth**2 / 4))
    return Faces(normals, (offset, offset, height / 2, depth / 2, depth / 2), radius)
