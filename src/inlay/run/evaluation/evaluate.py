"""Measuring what is there: a run, a base with adapters, or a folder of pictures, alone or against another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inlay.base.families import read_base
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError, DataError
from inlay.files import write_json
from inlay.metrics.measure import Features, difference
from inlay.metrics.reference import Reference
from inlay.run.evaluation import symptoms
from inlay.run.evaluation.drawing import Drawing, Shots, read_source
from inlay.run.evaluation.during import EVALUATION, PICTURES, overview
from inlay.run.evaluation.early import extractors, few_pictures
from inlay.run.evaluation.figures import details, finite
from inlay.run.evaluation.measuring import Figures, Lens, References, check_extractors, choose, measure, save_features
from inlay.run.evaluation.prompts import Questions, questions
from inlay.run.evaluation.settings import EvaluateSettings
from inlay.run.evaluation.target import Target
from inlay.run.pictures import save_picture
from inlay.run.record import command_line, now, versions
from inlay.run.reporter import Reporter

FEW = 20
"""Pictures below which even an unbiased figure has so wide an interval that it seldom decides anything."""


@dataclass
class Answer:
    """What is known of one target."""

    target: Target
    shots: Shots
    figures: Figures
    found: list[dict[str, Any]] = field(default_factory=list)
    questions: Questions | None = None
    base: Shots | None = None

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = {name: None if value is None else finite(value) for name, value in self.figures.values().items()}
        return {
            "target": self.target.about(),
            "metrics": values,
            "metric_details": {name: details(name, one) for name, one in self.figures.measures.items()},
            "missing": self.figures.missing,
            "symptoms": self.found,
        }


@dataclass(frozen=True)
class Common:
    """What all targets of an evaluation share."""

    settings: EvaluateSettings
    lens: Lens
    metrics: Sequence[str]
    references: References | None
    side: int
    """Of pictures that are drawn, in pixels."""
    device: str
    reporter: Reporter
    of_base: dict[Any, symptoms.OfBase] = field(default_factory=dict)
    """What a base drew, by its name and what it was asked."""


def settings_of(target: Target, stated: dict[str, Any]) -> EvaluateSettings:
    """Return the section of a target's run, with what was stated on the command line instead.

    Raises:
        ConfigError: a stated value is wrong.
    """
    from inlay.run.load import validate

    own = target.config.evaluate if target.config is not None else None
    section = own.model_dump(mode="json") if own is not None else {}
    # What is measured now chooses no weights.
    merged = {**section, **stated, "keep_best": None, "every": None, "leave_one_out": False}
    return validate(EvaluateSettings, merged)


def evaluate(
    target: Target,
    against: Target | None,
    stated: dict[str, Any],
    reporter: Reporter,
    into: Path | None = None,
    keep_reference: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measure a target, and write `evaluation.json` and `evaluation.png`.

    Args:
        target: what to measure.
        against: another one to hold it against with the same prompts and noise; None for none.
        stated: settings of :class:`EvaluateSettings` that were given.
        reporter: told how it goes.
        into: the directory to write to; by default the run's, or `evaluations/` and the target's name.
        keep_reference: where to save the reference's features, of the first extractor; None for nowhere.

    Returns:
        What `evaluation.json` holds, and the directory.

    Raises:
        InlayError: the targets cannot be read, measured or compared.
    """
    settings = settings_of(target, stated)
    side, multiple = _side(target, against)
    names = _extractors(settings, target, against)
    check_extractors(names)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training, _, why_none = _trained_on(target, side, multiple, settings.references)
    references = _references(settings, training, side, target, why_none)
    repeats = settings.pictures > 1 or target.kind == "folder"
    kinds = [name.partition(":")[0] for name in names]
    metrics = choose(settings.metrics, kinds, references is not None, repeats, "tabletop" in kinds)
    asked = {
        one: _questions(settings, one, _trained_on(one, side, multiple, settings.references)[1])
        for one in (target, against)
        if one is not None
    }
    ours = asked[target]
    if ours is not None:
        for note in few_pictures(settings, names, len(ours.prompts)):
            reporter.note(note)
    directory = into or _directory(target)
    reporter.phase("loading extractors")
    lens = Lens(names, device)
    if keep_reference is not None:
        _save_reference(references, lens, keep_reference)

    common = Common(settings, lens, metrics, references, side, device, reporter)
    first = _answer(target, asked, common)
    second = _answer(against, asked, common) if against is not None else None
    result: dict[str, Any] = first.record()
    result["evaluation"] = {
        "prompts": list(dict.fromkeys(first.shots.prompts or ())),
        "asked": first.questions.prompts if first.questions else [],
        "class_prompts": list(first.questions.class_prompts) if first.questions else [],
        "n": len(first.shots),
        "reference": references.name if references is not None else None,
        "features": [lens.extractors[name].name for name in names],
        **{key: getattr(settings, key) for key in ("pictures", "steps", "guidance", "negative_prompt", "seed")},
    }
    result |= {"created": now(), "command": command_line(), "versions": versions()}
    result["notes"] = _notes(first)
    if second is not None:
        result["against"] = second.record()
        result["comparison"] = _compared(first, second)
    write_json(directory / EVALUATION, result)
    before = second.shots if second is not None and len(second.shots) == len(first.shots) else first.base
    other = _short(second.target) if second is not None else "base"
    picture = overview(first.shots, before, _short(target), other)
    save_picture(picture, directory / PICTURES)
    return result, directory


def _answer(one: Target, asked: Mapping[Target, Questions | None], common: Common) -> Answer:
    """Draw or read a target's pictures, and measure them."""
    ours, settings, reporter = asked[one], common.settings, common.reporter
    if ours is None:
        pictures, captions = read_source(one.name, 10**6, common.side, "TARGET")
        shots = Shots(tuple(pictures), None if captions is None else tuple(captions), "")
        return Answer(one, shots, measure(common.metrics, common.lens, shots, common.references))
    drawing = Drawing.of(settings, common.side)
    before = None
    if settings.symptoms and one.tuned:
        trained = tuple(question.plain for question in ours.trained)
        key = (repr(one.config.base) if one.config else one.name, tuple(ours.plain), ours.class_prompts, trained)
        if key not in common.of_base:
            reporter.phase(f"loading {one.base_name}")
            base = one.load_base(common.device)
            common.of_base[key] = symptoms.draw_base(base, drawing, ours, settings.copies, reporter.progress)
        before = common.of_base[key]
    reporter.phase(f"loading {one.name}")
    model = one.load(common.device)
    for prompt in model.overlong(ours.prompts):
        reporter.note(f"the text encoder sees only the beginning of the prompt {prompt!r}")
    shots = drawing.draw(
        model, ours.prompts, ours.plain, lambda done, total: reporter.progress(f"drawing {one.name}", done, total)
    )
    figures = measure(common.metrics, common.lens, shots, common.references)
    result = Answer(one, shots, figures, questions=ours, base=before.prompts if before else None)
    if before is not None:
        tuned = symptoms.draw_tuned(model, drawing, ours, shots, settings.copies, reporter.progress)
        pictures, _, why = _trained_on(one, common.side, model.architecture.granularity, settings.references)
        pictures = pictures or (common.references.pictures if common.references else None)
        if pictures is None:
            raise DataError(f"what goes wrong in tuning is judged by the pictures tuned on: {why}")
        result.found, more = symptoms.find(tuned, before, common.lens, pictures, ours.why_none)
        figures.measures |= more.measures
        figures.missing |= more.missing
    return result


def _short(target: Target) -> str:
    return Path(target.name).name or target.name


def _side(target: Target, against: Target | None) -> tuple[int, int]:
    """Return the side in pixels at which all is drawn, and of what it must be a multiple."""
    models = [one for one in (target, against) if one is not None and one.kind != "folder"]
    if not models:
        return 64, 8
    found = []
    for one in models:
        settings = one.config.base if one.config is not None else BaseSettings(model=one.name)
        architecture = read_base(settings, locate(settings), one.config.scratch if one.config else None)
        stated = one.config.data.resolution if one.config is not None else None
        found.append((stated or architecture.resolution, architecture.granularity))
    if len({side for side, _ in found}) > 1:
        sides = " and ".join(str(side) for side, _ in found)
        raise ConfigError(f"the two targets draw pictures of {sides} pixels; figures of unequal sizes are not compared")
    return found[0]


def _extractors(settings: EvaluateSettings, target: Target, against: Target | None) -> tuple[str, ...]:
    if settings.features is not None:
        return settings.features
    name = target.base_name or (against.base_name if against is not None else "")
    if not name:
        raise ConfigError(
            f"--features: say which network looks at the pictures of {target.name}: tabletop for the rendered world, "
            "clip:openai/clip-vit-large-patch14 for photographs, or a folder that holds it"
        )
    return extractors(settings, name)


def _trained_on(
    target: Target, side: int, multiple: int, count: int
) -> tuple[tuple[NDArray[np.uint8], ...] | None, list[str], str]:
    """Return the pictures that a target was trained on, their captions, and why there are none."""
    try:
        pictures, captions = target.training(side, multiple, count)
    except DataError as error:
        return None, [], str(error)
    return pictures, captions, ""


def _references(
    settings: EvaluateSettings,
    training: tuple[NDArray[np.uint8], ...] | None,
    side: int,
    target: Target,
    why_none: str,
) -> References | None:
    if settings.reference is not None:
        return References.read(settings.reference, settings.references, side, "--reference")
    if training is not None:
        return References("the training pictures", training)
    if target.tuned:
        raise DataError(f"there is nothing to compare with: {why_none}")
    return None


def _questions(settings: EvaluateSettings, one: Target, captions: Sequence[str]) -> Questions | None:
    return None if one.kind == "folder" else questions(settings, one.config, captions)


def _directory(target: Target) -> Path:
    if target.kind == "run":
        return Path(target.name).expanduser()
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([target.name, *(path.stem for path in target.adapters)]))
    return Path("evaluations") / slug.strip("-.")


def _save_reference(references: References | None, lens: Lens, path: Path) -> None:
    if references is None:
        raise ConfigError("--save-reference: there is no --reference to save")
    if path.exists():
        raise ConfigError(f"--save-reference {path}: exists already; give another name, or remove it first")
    name = next(iter(lens.extractors))
    found = references.of(lens.extractors[name])
    if isinstance(found, Reference):
        raise ConfigError("--save-reference: what was read is a saved reference itself")
    assert isinstance(found, Features)
    save_features(found, path)


def _notes(answer: Answer) -> list[str]:
    found = []
    if len(answer.shots) < FEW:
        found.append(
            f"{len(answer.shots)} pictures are few: kernel distances (kid, cmmd) stay right on average but have wide "
            f"intervals, and Frechet distances, precision and recall say nothing; draw {FEW} or more"
        )
    for name, one in answer.figures.measures.items():
        if one.note and not one.metric.startswith("accuracy_"):
            found.append(f"{name}: {one.note}")
    return found


def _compared(first: Answer, second: Answer) -> dict[str, dict[str, Any]]:
    """Return first minus second for every figure of both.

    Raises:
        DataError: they are of unequally many pictures.
    """
    if len(first.shots) != len(second.shots):
        raise DataError(
            f"{first.target.name} has {len(first.shots)} pictures and {second.target.name} {len(second.shots)}: many "
            "metrics change with the number alone; give equally many"
        )
    found = {}
    for name, one in first.figures.measures.items():
        other = second.figures.measures.get(name)
        if other is None:
            continue
        try:
            change = difference(one, other)
        except DataError as error:
            found[name] = {"value": None, "interval": None, "paired": False, "clear": False, "reason": str(error)}
            continue
        interval = None if change.interval is None else [change.interval.low, change.interval.high]
        about = {"value": finite(change.value), "interval": interval, "paired": change.paired, "clear": change.clear}
        found[name] = about
    return found
