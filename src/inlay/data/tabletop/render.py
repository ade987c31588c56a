"""From a scene to a picture.

The surface and sky are sampled two by two a pixel, the things three by three and only where they are. World frame:
x to the right, y up from the surface, z towards the camera; the things stand about the origin. The picture is two
units high at the distance of the origin.
"""

from __future__ import annotations

import numpy as np

from inlay.data.tabletop import sketch
from inlay.data.tabletop.backdrop import backdrop, shadow
from inlay.data.tabletop.camera import Camera, shrink
from inlay.data.tabletop.placed import place
from inlay.data.tabletop.scene import Scene
from inlay.data.tabletop.shade import shade
from inlay.data.tabletop.sight import FINE, Sight, look


def _sketch(scene: Scene, behind: np.ndarray, sight: Sight, colour: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return the picture in pencil, uint8 [size, size, 3], drawn at the fine samples."""
    fine = np.repeat(np.repeat(behind, FINE, 0), FINE, 1)
    things, lines = np.zeros(fine.shape[:2], bool), np.zeros(fine.shape[:2], bool)
    window = (sight.rows, sight.columns)
    things[window] = sight.owner >= 0
    fine[window] = np.where(things[window][..., None], colour, fine[window])
    lines[window] = sketch.edges(sight.owner, normals)
    drawn = sketch.draw_over(np.sqrt(np.clip(fine, 0, 1)), lines, things, scene.texture)
    return (np.clip(shrink(drawn, FINE), 0, 1) * 255 + 0.5).astype(np.uint8)


def coverage(scene: Scene, size: int = 64) -> np.ndarray:
    """Return how much of each pixel the things of a scene cover, uint8 [size, size], 255 for all of it."""
    with np.errstate(all="ignore"):
        sight = look(place(scene), Camera.at(scene.elevation), size)
    covered = np.zeros((size, size), np.uint8)
    share = shrink((sight.owner >= 0).astype(np.float32), FINE)
    covered[_pixels(sight)] = (share * 255 + 0.5).astype(np.uint8)
    return covered


def _pixels(sight: Sight) -> tuple[slice, slice]:
    """Return the rows and columns of pixels that a window of fine samples lies in."""
    rows = slice(sight.rows.start // FINE, sight.rows.stop // FINE)
    return rows, slice(sight.columns.start // FINE, sight.columns.stop // FINE)


def render(scene: Scene, size: int = 64) -> np.ndarray:
    """Return the picture of a scene, uint8 [size, size, 3].

    Args:
        scene: what to show.
        size: height and width in pixels.
    """
    with np.errstate(all="ignore"):
        placed = place(scene)
        camera = Camera.at(scene.elevation)
        lit, contact = shadow(placed, scene, camera, size)
        sight = look(placed, camera, size)
        picture = backdrop(scene, camera, lit, contact, size)
        colour, normals = shade(placed, sight, scene, camera, size)
        # Over-bright samples are cut before the mean, so that a highlight has a clean edge.
        colour = np.minimum(colour, 1.3)
        if scene.style == "sketch":
            return _sketch(scene, picture, sight, colour, normals)
        window = _pixels(sight)
        fine = shrink(colour, FINE)
        cover = shrink((sight.owner >= 0).astype(np.float32), FINE)[..., None]
        picture[window] = picture[window] * (1 - cover) + fine
        return (np.sqrt(np.clip(picture, 0, 1)) * 255 + 0.5).astype(np.uint8)
