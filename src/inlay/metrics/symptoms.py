"""What goes wrong in tuning, each held against the base with the same prompts and noise, and said in a sentence.

Two questions are kept apart: is a change more than chance, and is it more than matters? Tuning always moves something,
and enough pictures show any move. So the base gives both thresholds: its pictures with the same noise say what chance
does, and the standard deviation of its own pictures of one prompt says how much another noise changes one picture,
which people take for granted. A change matters whose whole interval lies beyond that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError
from inlay.metrics.alignment import clip_text, diversity, image_similarity
from inlay.metrics.kernels import kid, polynomial, same_distribution
from inlay.metrics.measure import Difference, Features, Measure, difference

Degree = Literal["none", "slight", "marked"]
"""`none`: no more than chance. `slight`: more than chance, but not surely more than the base's own spread allows.
`marked`: surely more than that."""


@dataclass(frozen=True)
class Symptom:
    """One thing that may have gone wrong."""

    name: str
    degree: Degree
    tuned: Measure
    change: Difference | None
    """Tuned minus base; None where the symptom is judged by a probability."""
    tolerance: float | None
    """Largest change that is little; None where the base's pictures cannot say, and every clear change counts."""
    sentence: str

    @property
    def present(self) -> bool:
        """Whether it is there to a degree that matters."""
        return self.degree == "marked"


def language_drift(tuned: Features, base: Features, references: Features) -> Symptom:
    """Ask whether the class prompt, without the new word, has come to mean the subject (Ruiz et al. 2023, section 3.3).

    Args:
        tuned: the tuned model's pictures of the class prompt.
        base: the base's, with the same prompts and noise: equal `pairing`.
        references: the subject's own pictures.

    Raises:
        DataError: the sets are not paired, or cannot be compared.
    """
    _paired(tuned, base)
    said: dict[Degree, str] = {
        "none": "Class prompts show no more of the subject than before",
        "slight": "Class prompts show a little more of the subject",
        "marked": "Class prompts now show the subject",
    }
    tolerance = _tolerance(base.unit @ references.unit.mean(0), base.prompts)
    now, before = image_similarity(tuned, references), image_similarity(base, references)
    return _judged("language drift", now, before, 1, tolerance, said)


def prior_loss(tuned: Features, base: Features, seed: int = 0) -> Symptom:
    """Ask whether pictures of class prompts still come from the base's distribution: a kernel distance with its test.

    The distance is the squared length between two means in the kernel's space; it is held against the mean squared
    length of the base's pictures from their prompt's mean there, as squares of spreads are (Gretton et al. 2012,
    equation 3 gives the former).

    Args:
        tuned: the tuned model's pictures of class prompts.
        base: the base's pictures of the same prompts with *other* noise, so that the sets are independent.
        seed: of the permutations.

    Raises:
        DataError: the sets are paired, or cannot be compared.
    """
    if tuned.pairing and tuned.pairing == base.pairing:
        raise DataError(
            "Prior loss needs the base's pictures with other noise: shared noise makes unlike models alike."
        )
    distance = kid(tuned, base)
    probability = same_distribution(tuned, base, seed=seed)
    tolerance = _scatter(base)
    degree: Degree = "none"
    if probability < 0.05:
        surely = distance.interval.low if distance.interval else distance.value
        degree = "marked" if tolerance is None or surely > tolerance else "slight"
    said = {
        "none": "No change of the prior can be seen",
        "slight": "The prior has changed a little",
        "marked": "The prior has changed",
    }[degree]
    return Symptom(
        "prior loss",
        degree,
        distance,
        None,
        tolerance,
        f"{said}: {distance.metric} {distance.value:.3g} on {len(tuned)} pictures of class prompts; equal models would "
        f"differ as much with probability {probability:.3g}{_allowed(tolerance, '.3g')}.",
    )


def prompt_neglect(tuned: Features, base: Features, texts: Features) -> Symptom:
    """Ask whether pictures follow their prompts less than the base's do.

    Args:
        tuned: image features of the tuned model's pictures.
        base: of the base's, with the same noise, and the class in place of the new word: equal `pairing`.
        texts: text features of the prompts with the class in place of the new word, which the extractor cannot know.

    Raises:
        DataError: the sets are not paired, or cannot be compared.
    """
    _paired(tuned, base)
    said: dict[Degree, str] = {
        "none": "Prompts are followed as by the base",
        "slight": "Prompts are followed a little less than by the base",
        "marked": "The model neglects its prompts",
    }
    tolerance = _tolerance((base.unit * texts.unit).sum(1), base.prompts)
    return _judged("prompt neglect", clip_text(tuned, texts), clip_text(base, texts), -1, tolerance, said)


def lost_diversity(tuned: Features, base: Features) -> Symptom:
    """Ask whether pictures of one prompt have become more alike than the base's: an early sign of overfitting.

    A subject makes pictures alike by itself; compare methods by the figure, and read the symptom with copies.

    Args:
        tuned: several pictures a prompt.
        base: the base's, with the same noise: equal `pairing`.

    Raises:
        DataError: the sets are not paired, or cannot be compared.
    """
    _paired(tuned, base)
    said: dict[Degree, str] = {
        "none": "Pictures of one prompt are as varied as the base's",
        "slight": "Pictures of one prompt are a little more alike",
        "marked": "Pictures of one prompt are more alike",
    }
    return _judged("lost diversity", diversity(tuned), diversity(base), -1, _tolerance(*_pairs(base)), said)


def _paired(tuned: Features, base: Features) -> None:
    if not tuned.pairing or tuned.pairing != base.pairing:
        raise DataError(
            "The tuned model and the base must be drawn with the same prompts and noise; their pairings are "
            f"{tuned.pairing!r} and {base.pairing!r}."
        )


def _judged(
    name: str, now: Measure, before: Measure, bad: int, tolerance: float | None, said: dict[Degree, str]
) -> Symptom:
    """Return the symptom that a figure moves to its bad side (1 for up, -1 for down), and what its degree is called."""
    change = difference(now, before)
    degree = _degree(change, bad, tolerance)
    return Symptom(name, degree, now, change, tolerance, f"{said[degree]}: {_change(now, change, tolerance)}.")


def _degree(change: Difference, bad: int, tolerance: float | None) -> Degree:
    """Return how far a change to the bad side (1 for up, -1 for down) goes: its interval must clear each threshold."""
    if change.interval is None or not change.clear or change.value * bad <= 0:
        return "none"
    surely = min(abs(change.interval.low), abs(change.interval.high))
    return "marked" if tolerance is None or surely > tolerance else "slight"


def _tolerance(values: NDArray[np.float64], prompts: NDArray[np.int64]) -> float | None:
    """Return the tolerated change of a mean of one number a picture (or pair) of the base's; None of fewer than two.

    It is the standard deviation within prompts, so that easy and hard prompts do not widen it; where no prompt is
    repeated, that between all pictures.

    Args:
        values: [N].
        prompts: the number of each one's prompt, [N], as `Features.prompts`.
    """
    groups, freedom = _repeated(prompts)
    if freedom < 1:
        return None
    means = np.bincount(groups, weights=values) / np.bincount(groups)
    return math.sqrt(((values - means[groups]) ** 2).sum() / freedom)


def _scatter(features: Features) -> float | None:
    """Return the mean squared distance of pictures from their prompt's mean in the space of the kernel of `kid`.

    The space shows itself in inner products alone: |x - m|^2 summed over a group of n is the sum of <x, x>, less the
    sum of all <x, y> over n.
    """
    groups, freedom = _repeated(features.prompts)
    if freedom < 1:
        return None
    likeness = polynomial(features.double, features.double)
    member = np.eye(int(groups.max()) + 1)[groups]
    around = np.diag(member.T @ likeness @ member) / member.sum(0)
    return float((np.trace(likeness) - around.sum()) / freedom)


def _repeated(prompts: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Return prompts, or one for all where none is repeated, and how many degrees of freedom there are within them."""
    groups = prompts if np.bincount(prompts).max() > 1 else np.zeros_like(prompts)
    return groups, len(groups) - 1 - int(groups.max())


def _pairs(features: Features) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return 1 - cosine of every pair of pictures of one prompt, and the number of each pair's prompt.

    Prompts with one picture have no pair; the others are numbered anew.
    """
    prompts = features.prompts
    first, second = np.nonzero(np.triu(prompts[:, None] == prompts[None], 1))
    return 1 - (features.unit[first] * features.unit[second]).sum(1), np.unique(prompts[first], return_inverse=True)[1]


def _change(now: Measure, change: Difference, tolerance: float | None) -> str:
    span = f" ({change.interval.low:+.3f} to {change.interval.high:+.3f})" if change.interval else " (no interval)"
    return f"{now.metric} {now.value:.3f}, {change.value:+.3f}{span} against the base{_allowed(tolerance, '.3f')}"


def _allowed(tolerance: float | None, form: str) -> str:
    return "" if tolerance is None else f"; up to {tolerance:{form}} is no more than other noise changes a picture"
