"""The drawing style of the domain "sketch": coloured pencil on paper, outlines in dark pencil."""

from __future__ import annotations

import numpy as np

from inlay.data.tabletop.ground import noise

PAPER = (0.97, 0.95, 0.89)
INK = (0.16, 0.15, 0.18)
PERIOD = 1 / 21
"""Distance of two pencil strokes, in pictures."""


def edges(owner: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return where outlines run, bool [h, w]: between parts, at their borders, and where a surface bends sharply.

    Args:
        owner: index of the part at each sample, -1 for none, [h, w].
        normals: unit normals, zero for none, [h, w, 3].
    """
    found = np.zeros(owner.shape, bool)
    across = (owner[:, 1:] != owner[:, :-1]) | ((normals[:, 1:] * normals[:, :-1]).sum(-1) < 0.7)
    down = (owner[1:] != owner[:-1]) | ((normals[1:] * normals[:-1]).sum(-1) < 0.7)
    across &= (owner[:, 1:] >= 0) | (owner[:, :-1] >= 0)
    down &= (owner[1:] >= 0) | (owner[:-1] >= 0)
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found


def draw_over(picture: np.ndarray, lines: np.ndarray, things: np.ndarray, seed: int) -> np.ndarray:
    """Redraw a picture in pencil.

    Args:
        picture: sRGB [h, w, 3] in [0, 1].
        lines: where outlines run, bool [h, w].
        things: where a thing is, bool [h, w]; the rest is drawn more lightly.
        seed: for the strokes' wobble and the paper's grain.

    Returns:
        sRGB [h, w, 3].
    """
    height, width = picture.shape[:2]
    y = np.arange(height, dtype=np.float32)[:, None] / height
    x = np.arange(width, dtype=np.float32)[None, :] / width
    wobble = noise(x, y, 60, seed)
    grain = noise(x, y, 230, seed + 1)
    tone = (picture[..., 0] + picture[..., 1] + picture[..., 2]) / 3
    phase = float(2 * np.pi / PERIOD / np.sqrt(2))
    first = np.sin((x + y) * phase + 1.5 * wobble)
    second = np.sin((x - y) * phase + 1.5 * wobble)
    # The darker the place, the wider the strokes; the second direction joins in the dark.
    one = np.clip((first - (2.2 * tone - 1.1)) * 2.5, 0, 1)
    two = np.clip((second - (3.0 * tone - 0.6)) * 2.5, 0, 1)
    strength = np.where(things, 0.45 + 0.35 * one + 0.2 * two, 0.26 + 0.24 * one + 0.10 * two)
    strength = np.clip(strength * (1 + 0.25 * grain), 0, 1)[..., None]
    paper = np.asarray(PAPER, np.float32) * (1 + 0.02 * grain[..., None])
    drawn = paper + strength * (picture - paper)
    ink = (lines * np.clip(0.88 + 0.4 * wobble, 0.5, 1))[..., None]
    return drawn + ink * (np.asarray(INK, np.float32) - drawn)
