"""Alignment with the prompt, fidelity to reference pictures, and diversity: mean cosines between features.

Compare such figures within one extractor only, and best as a paired difference: what is high depends on the extractor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError
from inlay.metrics.intervals import Interval, Jackknife, jackknife, of_mean
from inlay.metrics.measure import Features, Measure, measured, same_extractor


def clip_text(pictures: Features, texts: Features) -> Measure:
    """Return CLIP-T, the mean cosine between each picture and its prompt (Ruiz et al. 2023, section 4.1).

    Args:
        pictures: image features of a CLIP, [N, D].
        texts: text features of the same CLIP for the pictures' prompts, row by row, [N, D].

    Raises:
        DataError: the extractors or the numbers of rows differ.
    """
    same_extractor(pictures, texts)
    if len(pictures) != len(texts):
        raise DataError(f"CLIP-T needs a text for each picture; given: {len(pictures)} pictures, {len(texts)} texts.")
    found = of_mean((pictures.unit * texts.unit).sum(1), pictures.groups)
    return _measure("CLIP-T", found, pictures, texts)


def image_similarity(generated: Features, reference: Features) -> Measure:
    """Return the mean cosine over all pairs of a generated and a reference picture (Ruiz et al. 2023, section 4.1).

    On a CLIP's features it is CLIP-I (all pairs, as in arXiv 2303.18181), on a DINO's DINO-I.

    Raises:
        DataError: the extractors differ.
    """
    same_extractor(generated, reference)
    kind = generated.extractor.split(":")[0]
    label = {"clip": "CLIP-I", "inlay-tabletop-clip": "CLIP-I", "dino": "DINO-I", "dinov2": "DINOv2-I"}.get(kind, kind)
    found = of_mean(generated.unit @ reference.unit.mean(0), generated.groups)
    return _measure(label if label != kind else f"{kind}-I", found, generated, reference)


def diversity(generated: Features) -> Measure:
    """Return the mean of 1 - cosine over all pairs of pictures of the same prompt, in [0, 2].

    Ruiz et al. 2023 (section 4.1, DIV) do the same with LPIPS. Pictures of different prompts differ anyway and are not
    compared; without clusters all pictures count as of one prompt.

    Raises:
        DataError: no two pictures share a prompt.
    """
    prompts = generated.prompts
    kinds = int(prompts.max()) + 1
    if np.bincount(prompts).max() < 2:
        raise DataError(
            "Diversity needs two pictures of a prompt; every prompt has one. Draw each with several noises."
        )

    def statistic(mask: NDArray[np.bool_]) -> float:
        counts = np.bincount(prompts[mask], minlength=kinds)
        sums = np.zeros((kinds, generated.unit.shape[1]))
        np.add.at(sums, prompts[mask], generated.unit[mask])
        pairs = float((counts * (counts - 1)).sum())
        # |sum of unit vectors|^2 counts every ordered pair, and each picture with itself. No pairs: as before.
        return 1 - float((sums**2).sum() - counts.sum()) / pairs if pairs else float("nan")

    found = jackknife(statistic, generated.groups)
    if not np.isfinite(found.left_out).all():
        found = Jackknife(found.value, (found.value,), (len(generated),))
    return _measure("diversity", found, generated, None)


def _measure(label: str, found: Jackknife, generated: Features, reference: Features | None) -> Measure:
    interval: Interval | None = found.interval()
    few = "" if interval else "No interval: fewer than three independent pictures or prompts, or all of them equal."
    return measured(label, found, interval, generated, reference, few)
