"""What goes wrong in tuning, asked of a tuned model: the pictures that each question needs, and the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inlay.base.contract import Base
from inlay.errors import DataError
from inlay.metrics import symptoms
from inlay.metrics.copies import find_copies, thumbnails
from inlay.metrics.intervals import group, of_mean, of_share
from inlay.metrics.measure import Difference, Measure
from inlay.run.evaluation.drawing import Drawing, Shots
from inlay.run.evaluation.figures import finite
from inlay.run.evaluation.measuring import Figures, Lens
from inlay.run.evaluation.prompts import Questions

OTHER = "other evaluation"
"""Purpose of the noise that is independent of the pictures that are measured."""


@dataclass(frozen=True)
class Sets:
    """Pictures of the tuned model and of its base; None where they are not needed or cannot be."""

    tuned: Shots
    """Of the prompts."""
    base: Shots
    """The base's for the same questions and noise."""
    tuned_class: Shots | None
    """Of the class prompts."""
    base_class: Shots | None
    """The base's, same noise."""
    base_class_other: Shots | None
    """The base's, other noise."""


def draw_base(
    base: Base, drawing: Drawing, questions: Questions, progress: Callable[[str, int, int], None]
) -> tuple[Shots, Shots | None, Shots | None]:
    """Draw what the base has to say: for the prompts, for the class prompts, and for these with other noise."""
    plain = questions.plain
    first = drawing.draw(base, plain, plain, lambda done, total: progress("drawing with the base", done, total))
    if not questions.class_prompts:
        return first, None, None
    of_class = list(questions.class_prompts)
    same = drawing.pairing(of_class) == first.pairing
    second = (
        first
        if same
        else drawing.draw(
            base, of_class, of_class, lambda done, total: progress("drawing the class with the base", done, total)
        )
    )
    third = drawing.draw(
        base, of_class, of_class, lambda done, total: progress("drawing the class with other noise", done, total), OTHER
    )
    return first, second, third


def draw_class(
    tuned: Base, drawing: Drawing, questions: Questions, progress: Callable[[str, int, int], None]
) -> Shots | None:
    """Draw the class prompts with the tuned model; None where there are none."""
    of_class = list(questions.class_prompts)
    if not of_class:
        return None
    return drawing.draw(
        tuned, of_class, of_class, lambda done, total: progress("drawing the class with the tuned model", done, total)
    )


def find(
    sets: Sets, lens: Lens, training: Sequence[NDArray[np.uint8]], why_no_class: str
) -> tuple[list[dict], Figures]:
    """Return the answers, each with its sentence, and their figures by flat name.

    Args:
        sets: from :func:`draw_base` and :func:`draw_class`.
        lens: the first extractor answers; prompt neglect takes the first that reads prompts.
        training: the pictures that the model was tuned on.
        why_no_class: why the questions about the class cannot be asked, where that is so.
    """
    which = lens.first() or ""
    reader = lens.first(texts=True)
    of_training = Shots(tuple(training), None, "")
    figures, found = Figures(), []

    def ask(name: str, flat: str, answer: Callable[[], tuple[dict[str, Any], Measure]]) -> None:
        try:
            finding, measure = answer()
        except DataError as error:
            figures.missing[flat] = str(error)
            found.append({"name": name, "figure": flat, "present": None, "sentence": "", "reason": str(error)})
            return
        figures.measures[flat] = measure
        found.append({"name": name, "figure": flat, **finding})

    def drift() -> tuple[dict[str, Any], Measure]:
        tuned, base = _needed(sets.tuned_class, why_no_class), _needed(sets.base_class, why_no_class)
        return _symptom(
            symptoms.language_drift(
                lens.features(which, tuned), lens.features(which, base), lens.features(which, of_training)
            )
        )

    def prior() -> tuple[dict[str, Any], Measure]:
        tuned, base = _needed(sets.tuned_class, why_no_class), _needed(sets.base_class_other, why_no_class)
        return _symptom(symptoms.prior_loss(lens.features(which, tuned), lens.features(which, base)))

    def neglect() -> tuple[dict[str, Any], Measure]:
        if reader is None or sets.tuned.prompts is None:
            raise DataError("none of the extractors reads prompts; add tabletop or clip to features")
        texts = lens.texts(reader, sets.tuned.prompts)
        return _symptom(
            symptoms.prompt_neglect(lens.features(reader, sets.tuned), lens.features(reader, sets.base), texts)
        )

    def variety() -> tuple[dict[str, Any], Measure]:
        return _symptom(symptoms.lost_diversity(lens.features(which, sets.tuned), lens.features(which, sets.base)))

    ask("language drift", "language_drift", drift)
    ask("prior loss", "prior_distance", prior)
    ask("prompt neglect", "prompt_neglect", neglect)
    ask("lost diversity", "diversity_change", variety)
    ask("copies", "copied_share", lambda: _copies(sets, lens, which, of_training))
    return found, figures


def _needed(shots: Shots | None, why: str) -> Shots:
    if shots is None:
        raise DataError(why)
    return shots


def _symptom(one: symptoms.Symptom) -> tuple[dict[str, Any], Measure]:
    """Return an answer for a record, and its figure: the change against the base, or a distance."""
    measure = one.tuned if one.change is None else _as_measure(one.change, one.tuned)
    return {"present": one.present, "sentence": one.sentence, "value": finite(one.tuned.value)}, measure


def _as_measure(change: Difference, of: Measure) -> Measure:
    """Return a change as a figure: two runs' changes against one base differ as what they changed to does."""
    return Measure(
        f"{change.metric} against the base",
        change.value,
        change.interval,
        of.pictures,
        of.references,
        of.extractor,
        of.fingerprint,
        of.reference,
        of.pairing,
        "" if change.interval else "No interval: too few independent prompts.",
        of.jackknife,
    )


def _copies(sets: Sets, lens: Lens, which: str, training: Shots) -> tuple[dict[str, Any], Measure]:
    # Whatever the base drew, it drew without knowing the training pictures: all of it says how near chance comes.
    drawn = [shots for shots in (sets.base, sets.base_class_other) if shots is not None]
    null = Shots(tuple(picture for shots in drawn for picture in shots.pictures), None, "")

    def both(shots: Shots) -> tuple[Any, NDArray]:
        return lens.features(which, shots), thumbnails(shots.pictures)

    found = find_copies(both(sets.tuned), both(training), both(null))
    features = lens.features(which, sets.tuned)
    shares = of_mean(found.copied, group(len(sets.tuned), sets.tuned.prompts))
    measure = Measure(
        "share of copies",
        shares.value,
        of_share(shares, features.independent),
        len(sets.tuned),
        len(training),
        features.extractor,
        features.fingerprint,
        lens.features(which, training).content,
        sets.tuned.pairing,
        "",
        shares,
    )
    per_picture = Counter((found.by_pixel[found.copied] + 1).tolist())
    answer = {
        "present": bool(found.copied.any()),
        "sentence": found.sentence,
        "value": shares.value,
        "training_pictures": {str(number): times for number, times in sorted(per_picture.items())},
        "copied": np.flatnonzero(found.copied).tolist(),
        "nearest": found.by_pixel.tolist(),
    }
    return answer, measure
