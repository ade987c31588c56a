"""Aspect-ratio buckets: the few shapes that pictures are trained in."""

from __future__ import annotations

import math

LARGEST_ASPECT = 2.0
"""Longer over shorter side of the most extreme bucket; beyond it, cropping loses less than the base's habits do."""


def bucket_sizes(resolution: int, step: int | None = None) -> list[tuple[int, int]]:
    """Return the shapes (height, width) in pixels, widest first, the square among them.

    For each width the height that brings the area nearest to resolution x resolution; and the same turned on its side,
    so that portrait and landscape are treated alike.

    Args:
        resolution: side of the square bucket.
        step: sides are multiples of it; by default an eighth of the resolution, in multiples of 8 pixels.
    """
    step = step or max(8, resolution // 64 * 8)
    shapes = {(resolution, resolution)}
    for width in range(math.ceil(resolution / step) * step, int(resolution * math.sqrt(LARGEST_ASPECT)) + step, step):
        height = round(resolution * resolution / width / step) * step
        if height and width / height <= LARGEST_ASPECT:
            shapes |= {(height, width), (width, height)}
    return sorted(shapes, key=lambda shape: (shape[0] / shape[1], shape))


def nearest_bucket(width: int, height: int, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the shape (height, width) whose aspect ratio is nearest on the logarithmic scale."""
    aspect = math.log(height / width)
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))
