"""Surfaces and skies: what lies under and behind the things, and the light of each time of day."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

RGB = tuple[float, float, float]
OUTDOOR = ("grass", "sand", "snow")
"""Surfaces that end at a horizon under the sky; the others end before a wall."""


@dataclass(frozen=True)
class Light:
    """The light of a time of day, in linear RGB.

    Attributes:
        sun: colour and strength of the direct light.
        height: the light's angle above the surface, in radians.
        ambient: colour and strength of the light from everywhere.
        zenith: the sky at the top of the picture; `horizon` is the sky where it meets the ground.
        wall: the wall behind an indoor surface.
    """

    sun: RGB
    height: float
    ambient: RGB
    zenith: RGB
    horizon: RGB
    wall: RGB


LIGHTS = {
    "morning": Light(
        sun=(0.98, 0.86, 0.70),
        height=0.60,
        ambient=(0.30, 0.34, 0.40),
        zenith=(0.28, 0.50, 0.80),
        horizon=(0.96, 0.84, 0.70),
        wall=(0.62, 0.58, 0.48),
    ),
    "noon": Light(
        sun=(1.00, 0.98, 0.94),
        height=1.02,
        ambient=(0.36, 0.38, 0.42),
        zenith=(0.08, 0.30, 0.82),
        horizon=(0.55, 0.76, 0.94),
        wall=(0.58, 0.66, 0.72),
    ),
    "sunset": Light(
        sun=(1.10, 0.64, 0.36),
        height=0.50,
        ambient=(0.27, 0.23, 0.28),
        zenith=(0.18, 0.10, 0.30),
        horizon=(1.00, 0.40, 0.12),
        wall=(0.60, 0.28, 0.16),
    ),
    "night": Light(
        sun=(0.52, 0.54, 0.66),
        height=0.78,
        ambient=(0.16, 0.165, 0.22),
        zenith=(0.004, 0.008, 0.04),
        horizon=(0.03, 0.05, 0.16),
        wall=(0.025, 0.03, 0.075),
    ),
}
"""Each time's light."""


def sun_direction(time: str, bearing: float) -> np.ndarray:
    """Return the unit vector [3] from the things towards the light."""
    height = LIGHTS[time].height
    return np.array([np.cos(bearing) * np.cos(height), np.sin(height), np.sin(bearing) * np.cos(height)])


def linear(paint: np.ndarray) -> np.ndarray:
    """Paint => light; a gamma of two is near enough to sRGB and cheap."""
    return paint * paint


@cache
def _tile() -> np.ndarray:
    """Return smooth noise that repeats, float32 [256, 256] in about [-1, 1], made of waves with 4 to 40 periods."""
    draws = np.random.RandomState(20240501)  # the legacy stream: the same numbers under every numpy
    spectrum = np.fft.rfft2(draws.standard_normal((256, 256)))
    rows, columns = np.fft.fftfreq(256)[:, None] * 256, np.fft.rfftfreq(256)[None] * 256
    frequency = np.hypot(rows, columns)
    field = np.fft.irfft2(spectrum * np.where((frequency > 3) & (frequency < 40), 1 / (frequency + 6), 0))
    return (field / np.abs(field).max() * 1.5).astype(np.float32)


def noise(x: np.ndarray, z: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """Return repeatable smooth noise at places; `scale` is in pixels of a 256-pixel tile for each unit of length."""
    rows = (x * scale + (seed * 37 % 256)).astype(np.int32) & 255
    columns = (z * scale + (seed * 91 % 256)).astype(np.int32) & 255
    return _tile()[rows, columns]


def _mix(one: RGB, two: RGB, share: np.ndarray) -> np.ndarray:
    """Return colours [..., 3] between two, by a share in [0, 1]."""
    return np.asarray(one, np.float32) + share[..., None] * (np.asarray(two, np.float32) - np.asarray(one, np.float32))


def surface_paint(name: str, x: np.ndarray, z: np.ndarray, seed: int) -> np.ndarray:
    """Return the surface's sRGB paint [..., 3] at places x, z on it."""
    if name == "wooden table":
        plank = np.floor(z / 0.42 + 0.3)
        grain = noise(x * 0.25 + plank * 0.37, z * 3.0, 60, seed)
        gap = np.abs(z / 0.42 + 0.3 - plank - 0.5) > 0.47
        tone = np.sin(plank * 12.9 + seed) * 0.12
        paint = _mix((0.52, 0.33, 0.17), (0.80, 0.57, 0.34), np.clip(0.55 + grain * 0.5 + tone, 0, 1))
        return paint * np.where(gap, np.float32(0.62), np.float32(1))[..., None]
    if name == "marble table":
        veins = np.abs(noise(x, z, 26, seed) + 0.4 * noise(x, z, 70, seed + 1))
        return _mix((0.62, 0.64, 0.69), (0.90, 0.90, 0.91), np.clip(veins * 3.2 + 0.3, 0, 1))
    if name == "grass":
        blades = noise(x, z, 150, seed) * 0.6 + noise(x, z, 30, seed + 1) * 0.6
        return _mix((0.16, 0.36, 0.10), (0.46, 0.66, 0.22), np.clip(0.5 + blades * 0.6, 0, 1))
    if name == "sand":
        ripple = np.sin(z * 13 + x * 2.2 + 4.0 * noise(x, z, 18, seed)) * 0.22
        return _mix((0.72, 0.58, 0.38), (0.93, 0.82, 0.60), np.clip(0.55 + ripple + 0.3 * noise(x, z, 200, seed), 0, 1))
    if name == "snow":
        drift = noise(x, z, 22, seed)
        return _mix((0.80, 0.85, 0.93), (0.97, 0.98, 1.0), np.clip(0.6 + drift, 0, 1))
    if name == "tiled floor":
        dark = (np.floor(x / 0.4 + 0.5) + np.floor(z / 0.4 + 0.5)) % 2
        paint = _mix((0.86, 0.84, 0.78), (0.26, 0.36, 0.40), dark.astype(np.float32))
        return paint * (1 + 0.06 * noise(x, z, 40, seed))[..., None]
    if name == "blue cloth":
        folds = np.sin(x * 5 + 5 * noise(x, z, 12, seed)) * 0.2 + 0.25 * noise(x, z, 120, seed)
        stripe = (np.abs(np.mod(x / 0.36, 1) - 0.5) < 0.12) | (np.abs(np.mod(z / 0.36, 1) - 0.5) < 0.12)
        share = np.clip(0.35 + folds * 0.6 + 0.3 * stripe, 0, 1)
        return _mix((0.22, 0.36, 0.62), (0.60, 0.74, 0.92), share)
    pile = noise(x, z, 170, seed) * 0.35
    figure = (np.abs(np.mod(x / 0.5, 1) - 0.5) + np.abs(np.mod(z / 0.5, 1) - 0.5)) < 0.22
    paint = _mix((0.44, 0.06, 0.09), (0.68, 0.14, 0.16), np.clip(0.5 + pile, 0, 1))
    gold = np.where(figure, np.float32(0.45), np.float32(0))
    return paint + gold[..., None] * (np.array((0.80, 0.60, 0.30), np.float32) - paint)


def sky(light: Light, name: str, time: str, across: np.ndarray, up: np.ndarray, sun: float, seed: int) -> np.ndarray:
    """Return what is behind the surface, linear RGB [h, w, 3].

    Args:
        light: the time's light.
        name: the surface; outdoor ones have a sky, the others a wall.
        time: the time of day.
        across: picture coordinate [1, w] in [-1, 1], to the right.
        up: height above the surface's edge, [h, 1], in half pictures.
        sun: the light's bearing, which the disc of sun or moon follows.
        seed: for clouds and stars.
    """
    share = np.clip(up / 1.1, 0, 1)
    if name not in OUTDOOR:
        wall = np.asarray(light.wall, np.float32)
        glow = np.exp(-((across - np.float32(0.7 * np.cos(sun))) ** 2) * 1.2 - (up - 0.5) ** 2 * 1.5)
        tint = 1 + 0.16 * np.sin(seed * np.array([1.7, 2.9, 4.3], np.float32))
        return wall * tint.astype(np.float32) * (0.72 + 0.5 * glow)[..., None]
    picture = _mix(
        light.horizon, light.zenith, np.broadcast_to(share, (up.shape[0], across.shape[1])) ** np.float32(0.75)
    )
    place = 0.75 * np.cos(sun) + 0.1 * np.sin(seed)
    if time == "night":
        stars = noise(across * 1.0, up * 1.0, 211, seed) > 0.82
        picture = picture + (stars * np.float32(0.3) * share)[..., None]
    else:
        cloud = np.clip(noise(across * 0.35, up * 1.3, 70, seed) * 1.2 - 0.1, 0, 0.7) * np.clip(up * 5, 0, 1)
        white = np.asarray(light.horizon, np.float32) * 0.5 + 0.5 * np.asarray(light.sun, np.float32)
        picture = picture + cloud[..., None] * (white - picture)
    if time in ("sunset", "night"):
        height, radius = (0.16, 0.17) if time == "sunset" else (0.52, 0.11)
        distance = np.sqrt((across - place) ** 2 + (up - height) ** 2)
        disc = np.clip((radius - distance) * 25, 0, 1) + 0.22 * np.exp(-distance * 5)
        colour = (1.2, 0.75, 0.25) if time == "sunset" else (0.75, 0.78, 0.72)
        picture = picture + disc[..., None] * np.asarray(colour, np.float32)
    return picture
