"""Does the model copy its training pictures? Nearest training pictures, and a verdict by the base's own pictures.

Every picture has a nearest training picture; the question is how near chance alone brings one. The base has never seen
the training pictures, so its pictures for the same prompts say that: they are the null distribution. A tuned model may
and should come nearer in *features*, since it draws the subject; a copy comes nearer in *pixels* too, since it repeats
pose, place and background. A picture counts as a copy only if both are beyond chance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError
from inlay.metrics.measure import Features, same_extractor

THUMBNAIL = 16
"""Side in pixels at which pictures are compared: fine grain, and shifts by less than a sixteenth, do not matter."""
FALSE_SHARE = 0.05
"""Expected share of wrongly accused pictures among those called copies, at most."""


@dataclass(frozen=True, eq=False)
class Copies:
    """What was found; arrays have one entry a generated picture."""

    by_feature: NDArray[np.int64]
    """Number of the nearest training picture in feature space, from 0."""
    feature_distance: NDArray[np.float64]
    """Distance to it between features of length 1, in [0, 2]."""
    by_pixel: NDArray[np.int64]
    """Number of the nearest training picture in pixel space, from 0; mirror images count."""
    pixel_distance: NDArray[np.float64]
    """Root mean square difference of the thumbnails, in [0, 1] of the range of a pixel."""
    probability: NDArray[np.float64]
    """With which a picture of the base would be as near, in both spaces."""
    copied: NDArray[np.bool_]
    """Whether the picture counts as a copy."""
    base_pictures: int
    sentence: str
    """The verdict in words."""


def thumbnails(pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return each picture [H, W, 3] averaged to a square of `THUMBNAIL` pixels: [N, side, side, 3] in [0, 1].

    Raises:
        DataError: a picture is not uint8 [H, W, 3].
    """
    import torch

    small = np.empty((len(pictures), THUMBNAIL, THUMBNAIL, 3))
    for place, picture in enumerate(pictures):
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
            raise DataError(f"Pictures must be uint8 [H, W, 3]; number {place} is {picture.dtype} {picture.shape}.")
        pixels = torch.tensor(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].double() / 255
        small[place] = torch.nn.functional.adaptive_avg_pool2d(pixels, THUMBNAIL)[0].permute(1, 2, 0).numpy()
    return small


def nearest_by_feature(pictures: Features, training: Features) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the number of each picture's nearest training picture, and the distance of their unit features.

    Raises:
        DataError: the extractors differ, or a feature is zero.
    """
    same_extractor(pictures, training)
    cosines = pictures.unit @ training.unit.T
    number = cosines.argmax(1)
    return number, np.sqrt(np.maximum(2 - 2 * cosines.max(1), 0.0))


def nearest_by_pixel(pictures: NDArray, training: NDArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the number of each thumbnail's nearest training thumbnail, mirrored or not, and their RMS difference."""
    rows = pictures.reshape(len(pictures), -1)
    squares = np.full((len(rows), len(training)), np.inf)
    for seen in (training, training[:, :, ::-1]):
        others = seen.reshape(len(training), -1)
        between = (rows**2).sum(1)[:, None] + (others**2).sum(1) - 2 * rows @ others.T
        squares = np.minimum(squares, np.maximum(between, 0.0))
    return squares.argmin(1), np.sqrt(squares.min(1) / rows.shape[1])


def find_copies(
    generated: tuple[Features, NDArray],
    training: tuple[Features, NDArray],
    base: tuple[Features, NDArray],
) -> Copies:
    """Judge which generated pictures are copies of training pictures, each set given as (features, thumbnails).

    A picture's probability is the share of base pictures that are as near, counting itself (a conformal p-value), in
    the space where that is larger (an intersection-union test, Berger 1982). Which are called copies is decided for all
    at once so that at most `FALSE_SHARE` of them are expected to be none (Benjamini and Hochberg 1995; Bates et
    al. 2023 show that it holds for conformal p-values of one null sample).

    Args:
        generated: pictures of the tuned model.
        training: what it was tuned on.
        base: pictures of the base for the same prompts, with the class in place of a new word.

    Raises:
        DataError: the extractors differ, or features and thumbnails are not equally many.
    """
    for label, (features, small) in zip(("generated", "training", "base"), (generated, training, base), strict=True):
        if len(features) != len(small):
            raise DataError(f"The {label} pictures have {len(features)} rows of features and {len(small)} thumbnails.")
    by_feature, feature_distance = nearest_by_feature(generated[0], training[0])
    by_pixel, pixel_distance = nearest_by_pixel(generated[1], training[1])
    probability = np.maximum(
        _as_near(feature_distance, nearest_by_feature(base[0], training[0])[1]),
        _as_near(pixel_distance, nearest_by_pixel(base[1], training[1])[1]),
    )
    copied = _discoveries(probability)
    sentence = _sentence(by_pixel[copied], len(copied), len(base[1]))
    return Copies(by_feature, feature_distance, by_pixel, pixel_distance, probability, copied, len(base[1]), sentence)


def _as_near(distances: NDArray[np.float64], null: NDArray[np.float64]) -> NDArray[np.float64]:
    return (1 + np.searchsorted(np.sort(null), distances, side="right")) / (1 + len(null))


def _discoveries(probability: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which hypotheses fall at a false discovery rate of `FALSE_SHARE` (Benjamini and Hochberg 1995)."""
    ordered = np.sort(probability)
    passed = np.flatnonzero(ordered <= FALSE_SHARE * np.arange(1, len(ordered) + 1) / len(ordered))
    return probability <= ordered[passed[-1]] if len(passed) else np.zeros(len(ordered), dtype=bool)


def _sentence(copied: NDArray[np.int64], count: int, base: int) -> str:
    if len(copied):
        parts = [f"{number + 1} ({times} of {count})" for number, times in Counter(copied.tolist()).most_common(5)]
        return f"The model copies training picture{'s' * (len(parts) > 1)} {', '.join(parts)}."
    fewest = math.ceil(count / (FALSE_SHARE * (base + 1)))
    if fewest > count:
        needed = math.ceil(1 / FALSE_SHARE) - 1
        return f"Copying cannot be judged by {base} pictures of the base: at least {needed} are needed."
    return (
        f"No copies among {count} pictures: none is nearer to a training picture than {base} pictures of the base let "
        f"chance explain. Fewer than {fewest} copies would have gone unseen; more pictures of the base show fewer."
    )
