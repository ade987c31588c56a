"""The ``evaluate`` section of a run file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from inlay.run.evaluation.table import DEFAULT, METRICS, SYMPTOMS, better
from inlay.settings import Settings


class EvaluateSettings(Settings):
    """What to measure of the pictures that a run draws, when, and against what; see docs/concepts/evaluation.md.

    Measuring changes no trained weights, unless ``keep_best`` chooses among them.
    """

    every: Annotated[int, Field(ge=1)] | None = None
    """Steps between measurements while training; null for one at the end only."""
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Which, by their names; by default `kid`, `diversity`, and those of `clip_t`, `clip_i`, `dino_i` and `accuracy`
    that the extractors and the prompts allow."""
    features: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Extractors that look at the pictures, by name, path or hub id; by default `tabletop`, where the base is."""
    reference: str | None = None
    """What generated pictures are compared with: a folder, another source as in ``data.source``, or a file of saved
    features; by default the training pictures."""
    references: Annotated[int, Field(ge=2)] = 1000
    """Use the first so many reference pictures at most."""
    prompts: Literal["dreambooth"] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """What to draw. ``dreambooth`` means the 25 sentences of the rendered world for one of its subjects, which is also
    the default for these; for others those of ``preview``."""
    class_prompts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Prompts of the class without the subject, by which drift and prior loss are judged; by default ``prompts``
    without the new word, where ``data.prior.prompt`` or the rendered world tells which that is."""
    pictures: Annotated[int, Field(ge=1)] = 4
    """Pictures a prompt."""
    steps: Annotated[int, Field(ge=1)] = 25
    """Calls of the denoiser a picture."""
    guidance: Annotated[float, Field(ge=0)] = 7.0
    """Scale of classifier-free guidance; 1 for none."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    seed: int = 0
    """Of the initial noise; not the run's own, so that runs of several seeds are compared with the same noise."""
    symptoms: bool = True
    """At the end, look for what goes wrong in tuning: language drift, prior loss, copies, neglect of prompts. Draws
    up to three times as many pictures with the base again."""
    copies: Annotated[int, Field(ge=0)] = 40
    """Pictures of the training prompt in which copies are looked for, since they show there first; the base draws two
    and a half times as many. 0 to look among the pictures of ``prompts``."""
    keep_best: str | None = None
    """Keep the weights of the step at which this metric, or `validation_loss`, was best, instead of the last. They
    become the run's result. Needs ``every``."""
    leave_one_out: bool = False
    """At the end, train once more without each picture in turn and measure the loss on it: for sets too small to hold
    pictures out of. Costs as many trainings as there are pictures."""

    def measures(self, figure: str) -> bool:
        """Return whether a figure of a record, such as `clip_i`, `kid@dino` or `copied_share`, is asked for here."""
        metric = figure.partition("@")[0]
        if metric in SYMPTOMS:
            return self.symptoms
        if metric == "leave_one_out_loss":
            return self.leave_one_out
        metric = "accuracy" if metric.startswith("accuracy_") else metric
        return metric in (DEFAULT if self.metrics is None else self.metrics)

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [name for name in metrics or () if name not in METRICS]
        if unknown:
            raise ValueError(f"there is no metric {', '.join(unknown)}; allowed: {', '.join(METRICS)}")
        return metrics

    @model_validator(mode="after")
    def _best_is_measured(self) -> EvaluateSettings:
        if self.keep_best is None:
            return self
        if self.every is None:
            raise ValueError(f"keep_best={self.keep_best} chooses among measurements; say with every=STEPS when to")
        measurable = [*METRICS, "validation_loss"]
        if better(self.keep_best) is None:
            raise ValueError(f"keep_best={self.keep_best} is not a metric with a better side; allowed: {measurable}")
        stated = self.keep_best == "validation_loss" or self.metrics is None or self.keep_best in self.metrics
        if not stated:
            raise ValueError(
                f"keep_best={self.keep_best} is not among metrics={list(self.metrics or ())}; add it there"
            )
        return self
