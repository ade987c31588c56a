"""The camera, and the raster of samples of its picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

DISTANCE = 3.2
"""From the camera to the point that it looks at."""
AIM = 0.43
"""Height of that point."""


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

    def windows(self, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Return left, right, bottom, top [n, 4] in the picture, a little too wide, of n balls: [n, 3] and [n]."""
        depth = (centres - self.eye) @ self.forward
        x, y = self.project(centres).T
        half = DISTANCE * radii / np.maximum(depth - radii, 0.2)
        return np.stack([x - half, x + half, y - half, y + half], -1)


def axis(size: int, samples: int) -> np.ndarray:
    """Return the picture coordinates of sample columns, [size * samples]."""
    return ((np.arange(size * samples, dtype=np.float32) + 0.5) / (size * samples) * 2 - 1).astype(np.float32)


def span(low: float, high: float, count: int) -> slice:
    """Return the samples of an axis of `count` that lie between two picture coordinates."""
    start = math.floor((low + 1) / 2 * count)
    stop = math.ceil((high + 1) / 2 * count) + 1
    return slice(min(max(start, 0), count), min(max(stop, 0), count))


def shrink(picture: np.ndarray, factor: int) -> np.ndarray:
    """Return the mean of each `factor` by `factor` block of samples."""
    total = np.zeros_like(picture[::factor, ::factor])
    for row in range(factor):
        for column in range(factor):
            total += picture[row::factor, column::factor]
    return total / np.float32(factor * factor)
