"""The metrics by name: which side is better, what they need, and a line for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["higher", "lower"]
Need = Literal["reference", "texts", "repeats", "asked"]


@dataclass(frozen=True)
class Metric:
    """One metric of a set of generated pictures."""

    better: Side
    needs: tuple[Need, ...]
    """What it cannot do without: reference pictures, an extractor with a text tower and prompts, several pictures of a
    prompt, or prompts of the rendered world."""
    line: str
    """What it says."""
    kinds: tuple[str, ...] = ()
    """Kinds of extractors that it is defined on; any when empty."""


CLIPS = ("tabletop", "clip")
DINOS = ("dino", "dinov2")

METRICS: dict[str, Metric] = {
    "kid": Metric("lower", ("reference",), "kernel distance from the reference"),
    "cmmd": Metric("lower", ("reference",), "kernel distance of CLIP features", CLIPS),
    "frechet": Metric("lower", ("reference",), "Frechet distance from the reference"),
    "frechet_infinity": Metric("lower", ("reference",), "Frechet distance at infinitely many pictures"),
    "precision": Metric("higher", ("reference",), "share of pictures like real ones"),
    "recall": Metric("higher", ("reference",), "share of real pictures within reach"),
    "density": Metric("higher", ("reference",), "how typical the pictures are"),
    "coverage": Metric("higher", ("reference",), "share of real pictures that are met"),
    "clip_t": Metric("higher", ("texts",), "picture and prompt agree", CLIPS),
    "clip_i": Metric("higher", ("reference",), "picture and reference agree", CLIPS),
    "dino_i": Metric("higher", ("reference",), "picture and reference agree in detail", DINOS),
    "diversity": Metric("higher", ("repeats",), "pictures of one prompt differ"),
    "accuracy": Metric("higher", ("asked",), "attributes that the prompt asks for are there", ("tabletop",)),
}
"""Every metric that `inlay evaluate` and the section `evaluate` know. `accuracy` comes with one figure an attribute."""

SYMPTOMS: dict[str, Side] = {
    "language_drift": "lower",
    "prior_distance": "lower",
    "prompt_neglect": "higher",
    "diversity_change": "higher",
    "copied_share": "lower",
}
"""Figures that the symptoms add, and which side is better."""
LOSSES: dict[str, Side] = {"validation_loss": "lower", "smoothed_loss": "lower", "leave_one_out_loss": "lower"}
DEFAULT = ("kid", "clip_t", "clip_i", "dino_i", "diversity", "accuracy")
"""What is measured when nobody says what, as far as it can be."""


def better(name: str) -> Side | None:
    """Return which side of a flat figure is better; None for a name that is none."""
    metric = name.partition("@")[0]
    if metric.startswith("accuracy_"):
        return "higher"
    if metric in METRICS:
        return METRICS[metric].better
    return SYMPTOMS.get(metric) or LOSSES.get(metric)
