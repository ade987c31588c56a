"""A judge of the rendered world: a small network that names what a picture of one thing shows.

Of the world's own renders the truth is known, so is how often the judge is right: its accuracy on renders that its
training never saw stands beside every figure. ``recipes/tabletop/classifier.py`` trains it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError
from inlay.metrics.features import resize
from inlay.metrics.intervals import group, of_mean, of_share
from inlay.metrics.measure import Measure

NAME = "inlay-tabletop-judge"
BATCH = 256
"""Pictures in a pass."""
MARK = "accuracy"
"""What the share of all asked attributes is called; that of one attribute is ``accuracy_<attribute>``."""


def folder() -> Path:
    """Return the folder of the judge that ships with inlay.

    Raises:
        DataError: this installation lacks it.
    """
    found = Path(str(resources.files("inlay"))) / "metrics" / "tabletop_judge"
    if not (found / "config.json").exists():
        raise DataError(f"The judge of the rendered world is missing: {found}. Install inlay with its package data.")
    return found


@cache
def config() -> dict[str, Any]:
    """Return the judge's attributes with their values, and how often it names each rightly on unseen renders."""
    return json.loads((folder() / "config.json").read_text(encoding="utf-8"))


def build(attributes: Mapping[str, Sequence[str]]) -> Any:
    """Return the untrained network: images [B, 3, 64, 64] in [-1, 1] to logits [B, values] of every attribute."""
    import torch
    from torch import nn

    class Judge(nn.Module):
        """Convolutions of stride 2 and 1 with batch norm, mean and maximum over places, a linear layer an attribute."""

        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            before = 3
            for width, stride in ((32, 2), (64, 2), (64, 1), (128, 2), (128, 1), (192, 2), (192, 1)):
                layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            self.trunk = nn.Sequential(*layers)
            self.heads = nn.ModuleDict({name: nn.Linear(2 * before, len(of)) for name, of in attributes.items()})

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            found = self.trunk(images).float()
            pooled = torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1)
            return {name: head(pooled) for name, head in self.heads.items()}

    return Judge()


@cache
def load(place: Path | None = None) -> Any:
    """Return the trained judge of a folder, by default the one that ships with inlay."""
    from safetensors.torch import load_file

    judge = build(config()["attributes"])
    state = load_file((place or folder()) / "model.safetensors")
    judge.load_state_dict({name: value.float() for name, value in state.items()})
    return judge.eval()


def name_attributes(pictures: Sequence[NDArray[np.uint8]]) -> dict[str, list[str]]:
    """Return the likeliest value of every attribute of every picture.

    Args:
        pictures: uint8 [H, W, 3], of one thing each; resized to 64 x 64 where they are not.

    Raises:
        DataError: a picture is not uint8 [H, W, 3].
    """
    import torch

    judge, attributes = load(), config()["attributes"]
    found: dict[str, list[str]] = {name: [] for name in attributes}
    with torch.inference_mode():
        for begin in range(0, len(pictures), BATCH):
            pixels = torch.cat([resize(picture[None]) for picture in pictures[begin : begin + BATCH]])
            for name, logits in judge(pixels).items():
                found[name] += [attributes[name][place] for place in logits.argmax(1).tolist()]
    return found


def attribute_accuracy(
    pictures: Sequence[NDArray[np.uint8]], asked: Sequence[Mapping[str, str]], prompts: Sequence[str], pairing: str = ""
) -> dict[str, Measure]:
    """Return the share of asked attributes that pictures show, in all and by attribute.

    Args:
        pictures: uint8 [H, W, 3].
        asked: what each picture's prompt asks for: attribute to value; empty where nothing can be said.
        prompts: of the pictures, row by row: those of one prompt are left out together.
        pairing: see `Features.pairing`.

    Raises:
        DataError: the numbers of rows differ, or no prompt asks for anything that the judge knows.
    """
    if not len(pictures) == len(asked) == len(prompts):
        raise DataError(f"{len(pictures)} pictures, {len(asked)} requests and {len(prompts)} prompts: unequally many.")
    named = name_attributes(pictures)
    right = [
        {name: named[name][place] == value for name, value in wanted.items() if name in named}
        for place, wanted in enumerate(asked)
    ]
    rows = {MARK: {place: float(np.mean([*one.values()])) for place, one in enumerate(right) if one}}
    for name in named:
        rows[f"{MARK}_{name}"] = {place: float(one[name]) for place, one in enumerate(right) if name in one}
    if not rows[MARK]:
        raise DataError("No prompt asks for one thing and an attribute of it that the judge of the world knows.")
    return {
        label: _measure(label, values, [prompts[place] for place in values], pairing)
        for label, values in rows.items()
        if values
    }


def _measure(label: str, values: Mapping[int, float], prompts: Sequence[str], pairing: str) -> Measure:
    found = of_mean(np.array([*values.values()]), group(len(values), prompts))
    accuracy = config()["accuracy"]
    attribute = label.removeprefix(f"{MARK}_")
    if label == MARK:
        interval, own = found.interval(), float(np.mean([*accuracy.values()]))
    else:
        distinct = len(set(prompts))
        interval, own = of_share(found, distinct if distinct > 1 else len(values)), accuracy[attribute]
    note = f"The judge itself names {100 * own:.1f} % rightly on unseen renders."
    return Measure(label, found.value, interval, len(values), 0, NAME, _fingerprint(), "", pairing, note, found)


@cache
def _fingerprint() -> str:
    import hashlib

    return hashlib.sha256((folder() / "model.safetensors").read_bytes()).hexdigest()
