"""What goes wrong in tuning, asked of a tuned model: the pictures that each question needs, and the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inlay.base.contract import Base
from inlay.errors import DataError
from inlay.metrics import symptoms
from inlay.metrics.copies import find_copies, thumbnails
from inlay.metrics.intervals import group, of_mean, of_share
from inlay.metrics.measure import Difference, Measure, measured
from inlay.run.evaluation.drawing import Drawing, Shots
from inlay.run.evaluation.figures import finite
from inlay.run.evaluation.measuring import Figures, Lens
from inlay.run.evaluation.prompts import Question, Questions

OTHER = "other evaluation"
"""Purpose of the noise that is independent of the pictures that are measured."""


NULL = 2.5
"""Pictures of the base for each of the model's, where copies are looked for: 40 and 100 leave fewer than 8 unseen."""

Tell = Callable[[str, int, int], None]
"""Told what is drawn, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class OfBase:
    """What the base draws; None where it is not asked."""

    prompts: Shots
    """For the questions, in place of the new word the class."""
    of_class: Shots | None
    """For the class prompts, with the noise of the tuned model's."""
    of_class_other: Shots | None
    """For the class prompts, with other noise."""
    trained: Shots | None
    """For the captions of the training pictures."""


@dataclass(frozen=True)
class OfTuned:
    """What the tuned model draws; None where it is not asked."""

    prompts: Shots
    """For the questions: the pictures that are measured."""
    of_class: Shots | None
    """For the class prompts."""
    trained: Shots | None
    """For the captions of the training pictures."""


def draw_base(base: Base, drawing: Drawing, questions: Questions, copies: int, tell: Tell) -> OfBase:
    """Draw what the base has to say to all questions.

    Args:
        base: without what was learned.
        drawing: how.
        questions: what it is asked, without the new word.
        copies: see `EvaluateSettings.copies`.
        tell: told how it goes.
    """

    def draw(what: str, prompts: Sequence[str], purpose: str = "evaluation") -> Shots:
        return drawing.draw_base(base, prompts, partial(tell, what), purpose)

    first = draw("drawing with the base", questions.plain)
    of_class = list(questions.class_prompts)
    second = third = fourth = None
    if of_class:
        same = drawing.pairing(of_class) == first.pairing
        second = first if same else draw("drawing the class with the base", of_class)
        third = draw("drawing the class with other noise", of_class, OTHER)
    if copies and questions.trained:
        chosen, each = _of_training(drawing, questions, round(NULL * copies))
        plain = [question.plain for question in chosen]
        told = partial(tell, "drawing the training prompt with the base")
        # Other noise: these pictures are a sample of what chance does, not partners of the tuned model's.
        fourth = each.draw_base(base, plain, told, OTHER)
    return OfBase(first, second, third, fourth)


def draw_tuned(tuned: Base, drawing: Drawing, questions: Questions, shots: Shots, copies: int, tell: Tell) -> OfTuned:
    """Draw what the questions need besides the pictures that are measured, ``shots``."""
    of_class = list(questions.class_prompts)
    second = third = None
    if of_class:
        what = "drawing the class with the tuned model"
        second = drawing.draw(tuned, of_class, of_class, partial(tell, what))
    if copies and questions.trained:
        chosen, each = _of_training(drawing, questions, copies)
        asked, plain = [question.prompt for question in chosen], [question.plain for question in chosen]
        third = each.draw(tuned, asked, plain, partial(tell, "drawing the training prompt with the tuned model"))
    return OfTuned(shots, second, third)


def _of_training(drawing: Drawing, questions: Questions, count: int) -> tuple[Sequence[Question], Drawing]:
    """Return captions of training pictures, and a drawing that makes about ``count`` pictures of them in all."""
    chosen = questions.trained[:count]
    return chosen, replace(drawing, pictures=max(1, round(count / len(chosen))))


def find(
    tuned: OfTuned, base: OfBase, lens: Lens, training: Sequence[NDArray[np.uint8]], why_no_class: str
) -> tuple[list[dict], Figures]:
    """Return the answers, each with its sentence, and their figures by flat name.

    Args:
        tuned: from :func:`draw_tuned`.
        base: from :func:`draw_base`.
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
            unasked = {"present": None, "degree": None, "sentence": "", "reason": str(error)}
            found.append({"name": name, "figure": flat, **unasked})
            return
        figures.measures[flat] = measure
        found.append({"name": name, "figure": flat, **finding})

    def drift() -> tuple[dict[str, Any], Measure]:
        now, before = _needed(tuned.of_class, why_no_class), _needed(base.of_class, why_no_class)
        return _symptom(
            symptoms.language_drift(
                lens.features(which, now), lens.features(which, before), lens.features(which, of_training)
            )
        )

    def prior() -> tuple[dict[str, Any], Measure]:
        now, before = _needed(tuned.of_class, why_no_class), _needed(base.of_class_other, why_no_class)
        return _symptom(symptoms.prior_loss(lens.features(which, now), lens.features(which, before)))

    def neglect() -> tuple[dict[str, Any], Measure]:
        if reader is None or tuned.prompts.prompts is None:
            raise DataError("none of the extractors reads prompts; add tabletop or clip to features")
        texts = lens.texts(reader, tuned.prompts.prompts)
        return _symptom(
            symptoms.prompt_neglect(lens.features(reader, tuned.prompts), lens.features(reader, base.prompts), texts)
        )

    def variety() -> tuple[dict[str, Any], Measure]:
        return _symptom(
            symptoms.lost_diversity(lens.features(which, tuned.prompts), lens.features(which, base.prompts))
        )

    ask("language drift", "language_drift", drift)
    ask("prior loss", "prior_distance", prior)
    ask("prompt neglect", "prompt_neglect", neglect)
    ask("lost diversity", "diversity_change", variety)
    ask("copies", "copied_share", lambda: _copies(tuned, base, lens, which, of_training))
    return found, figures


def _needed(shots: Shots | None, why: str) -> Shots:
    if shots is None:
        raise DataError(why)
    return shots


def _symptom(one: symptoms.Symptom) -> tuple[dict[str, Any], Measure]:
    """Return an answer for a record, and its figure: the change against the base, or a distance."""
    measure = one.tuned if one.change is None else _as_measure(one.change, one.tuned)
    answer = {
        "present": one.present,
        "degree": one.degree,
        "sentence": one.sentence,
        "value": finite(one.tuned.value),
        "tolerance": one.tolerance,
    }
    return answer, measure


def _as_measure(change: Difference, of: Measure) -> Measure:
    """Return a change as a figure: two runs' changes against one base differ as what they changed to does."""
    few = "" if change.interval else "No interval: too few independent prompts."
    metric = f"{change.metric} against the base"
    return replace(of, metric=metric, value=change.value, interval=change.interval, note=few)


def _copies(tuned: OfTuned, base: OfBase, lens: Lens, which: str, training: Shots) -> tuple[dict[str, Any], Measure]:
    if tuned.trained is not None and base.trained is not None:
        shots, drawn = tuned.trained, [base.trained]
    else:
        # Whatever the base drew, it drew without knowing the training pictures: all of it says how near chance comes.
        shots, drawn = tuned.prompts, [one for one in (base.prompts, base.of_class_other) if one is not None]
    null = Shots(tuple(picture for one in drawn for picture in one.pictures), None, "")

    def both(one: Shots) -> tuple[Any, NDArray]:
        return lens.features(which, one), thumbnails(one.pictures)

    found = find_copies(both(shots), both(training), both(null))
    features = lens.features(which, shots)
    shares = of_mean(found.copied, group(len(shots), shots.prompts))
    share = of_share(shares, features.independent)
    measure = measured("share of copies", shares, share, features, lens.features(which, training))
    per_picture = Counter((found.by_pixel[found.copied] + 1).tolist())
    answer = {
        "present": bool(found.copied.any()),
        "degree": "marked" if found.copied.any() else "none",
        "sentence": found.sentence,
        "value": shares.value,
        "training_pictures": {str(number): times for number, times in sorted(per_picture.items())},
        "copied": np.flatnonzero(found.copied).tolist(),
        "nearest": (found.by_pixel + 1).tolist(),
        "probability": [round(float(value), 5) for value in found.probability],
    }
    return answer, measure
