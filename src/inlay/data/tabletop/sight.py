"""What each ray of the camera meets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inlay.data.tabletop.camera import DISTANCE, Camera, axis, span
from inlay.data.tabletop.placed import Placed

FINE = 3
"""Samples along each side of a pixel for things."""


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


def look(placed: list[Placed], camera: Camera, size: int) -> Sight:
    """Return what is seen of the parts in a picture of `size` pixels a side."""
    count = size * FINE
    windows = camera.windows(np.array([item.centre for item in placed]), np.array([item.reach for item in placed]))
    columns = span(windows[:, 0].min(), windows[:, 1].max(), count)
    rows = span(-windows[:, 3].max(), -windows[:, 2].min(), count)
    columns = slice(columns.start // FINE * FINE, -(-columns.stop // FINE) * FINE)
    rows = slice(rows.start // FINE * FINE, -(-rows.stop // FINE) * FINE)
    across, up = axis(size, FINE), -axis(size, FINE)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    depth, owner = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int16)
    for index, (item, (left, right, bottom, top)) in enumerate(zip(placed, windows.tolist(), strict=True)):
        cols, lines = span(left, right, count), span(-top, -bottom, count)
        if cols.start >= cols.stop or lines.start >= lines.stop:
            continue
        ahead = (item.back @ camera.forward * DISTANCE).tolist()
        right_axis, up_axis = item.back[:, 0].tolist(), (item.back @ camera.up).tolist()
        u, v = across[cols][None, :], up[lines][:, None]
        direction = tuple((a + r * u) + w * v for a, r, w in zip(ahead, right_axis, up_axis, strict=True))
        origin = tuple((item.back @ (camera.eye - item.centre)).tolist())
        found = item.part.solid.hit(origin, direction)
        window = (
            slice(lines.start - rows.start, lines.stop - rows.start),
            slice(cols.start - columns.start, cols.stop - columns.start),
        )
        closer = found < depth[window]
        np.copyto(depth[window], found, where=closer)
        np.copyto(owner[window], np.int16(index), where=closer)
    return Sight(rows, columns, depth, owner)
