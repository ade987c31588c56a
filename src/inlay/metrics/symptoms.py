"""What goes wrong in tuning, each held against the base with the same prompts and noise, and said in a sentence.

The base is the threshold: a symptom is present when the paired interval of the change excludes zero on the bad side.
"""

from __future__ import annotations

from dataclasses import dataclass

from inlay.errors import DataError
from inlay.metrics.alignment import clip_text, diversity, image_similarity
from inlay.metrics.kernels import kid, same_distribution
from inlay.metrics.measure import Difference, Features, Measure, difference


@dataclass(frozen=True)
class Symptom:
    """One thing that may have gone wrong."""

    name: str
    present: bool
    tuned: Measure
    change: Difference | None
    """Tuned minus base; None where the symptom is judged by a probability."""
    sentence: str


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
    now = image_similarity(tuned, references)
    change = difference(now, image_similarity(base, references))
    present = change.clear and change.value > 0
    said = "Class prompts now show the subject" if present else "Class prompts show no more of the subject than before"
    return Symptom("language drift", present, now, change, f"{said}: {_change(now, change)}.")


def prior_loss(tuned: Features, base: Features, seed: int = 0) -> Symptom:
    """Ask whether pictures of class prompts still come from the base's distribution: a kernel distance with its test.

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
    present = probability < 0.05
    said = "The prior has changed" if present else "No change of the prior can be seen"
    return Symptom(
        "prior loss",
        present,
        distance,
        None,
        f"{said}: {distance.metric} {distance.value:.3g} on {len(tuned)} pictures of class prompts; equal models would "
        f"differ as much with probability {probability:.3g}.",
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
    now = clip_text(tuned, texts)
    change = difference(now, clip_text(base, texts))
    present = change.clear and change.value < 0
    said = "The model neglects its prompts" if present else "Prompts are followed as by the base"
    return Symptom("prompt neglect", present, now, change, f"{said}: {_change(now, change)}.")


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
    now = diversity(tuned)
    change = difference(now, diversity(base))
    present = change.clear and change.value < 0
    said = "Pictures of one prompt are more alike" if present else "Pictures of one prompt are as varied as the base's"
    return Symptom("lost diversity", present, now, change, f"{said}: {_change(now, change)}.")


def _paired(tuned: Features, base: Features) -> None:
    if not tuned.pairing or tuned.pairing != base.pairing:
        raise DataError(
            "The tuned model and the base must be drawn with the same prompts and noise; their pairings are "
            f"{tuned.pairing!r} and {base.pairing!r}."
        )


def _change(now: Measure, change: Difference) -> str:
    span = f" ({change.interval.low:+.3f} to {change.interval.high:+.3f})" if change.interval else " (no interval)"
    return f"{now.metric} {now.value:.3f}, {change.value:+.3f}{span} against the base"
