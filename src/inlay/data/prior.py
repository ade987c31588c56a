"""Class pictures for prior preservation: the user's own, those that a base drew, and the order of both in training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from inlay.data.cache import cache_directory
from inlay.data.dataset import Batch, Dataset, enlarged
from inlay.data.decode import decode
from inlay.data.settings import DataSettings, PriorSettings
from inlay.data.sources import Example, Loaded, load_examples
from inlay.randomness import derive

RECIPE = "recipe.json"
"""Beside the drawn pictures: what they were drawn with."""


@dataclass(frozen=True)
class DrawnPictures:
    """Pictures of one prompt that a base drew, numbered, kept on disk for every run that asks for the same.

    Picture n follows from the recipe and n alone, so more can be drawn later, and what a killed process drew is kept.
    """

    recipe: dict[str, Any]
    """Everything that decides what the pictures are, as JSON values."""

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe."""
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()

    @property
    def directory(self) -> Path:
        """Where they are kept, below :func:`inlay.data.cache.cache_directory`."""
        return class_images_directory() / self.hash[:32]

    def path(self, index: int) -> Path:
        """Return the file of one picture, there or not."""
        return self.directory / f"{index:05d}.png"

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Return those of ``indices`` that are not there, or broken."""
        indices = list(indices)
        size = (self.recipe["width"], self.recipe["height"])
        with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
            whole = list(pool.map(lambda index: _is_whole(self.path(index), size), indices))
        return [index for index, there in zip(indices, whole, strict=True) if not there]

    def examples(self, count: int) -> list[Example]:
        """Return the first ``count`` pictures, which must be there."""
        width, height, caption = self.recipe["width"], self.recipe["height"], self.recipe["prompt"]
        return [
            Example(
                id=f"class picture {path}",
                caption=caption,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                width=width,
                height=height,
                reader=partial(_read, path),
            )
            for path in map(self.path, range(count))
        ]


@dataclass(frozen=True)
class Prior:
    """The class pictures of a run."""

    dataset: Dataset
    settings: PriorSettings
    given: int
    """How many are the user's own; they come first, the drawn ones after them."""
    identity: str
    """SHA-256 of what the pictures are: content of the given ones, recipe of the drawn ones. A run goes on with drawn
    pictures that differ in their last bits because another machine drew them anew."""

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        """Return the class pictures of an optimizer step; as :meth:`Dataset.batch`, drawn independently of them."""
        return self.dataset.batch(derive(seed, "prior"), step, batch_size)


def class_images_directory() -> Path:
    """Return the directory of all drawn class pictures."""
    return cache_directory() / "class-images"


def given_pictures(settings: DataSettings, resolution: int) -> Loaded:
    """Return the class pictures that the user gives, none where the base is to draw them all.

    Args:
        settings: the data section.
        resolution: side in pixels at which the rendered world draws.

    Raises:
        DataError: they are not there, or cannot be decoded.
    """
    prior = settings.prior
    if prior is None or prior.source is None:
        return Loaded([], [], [])
    own = {"source": prior.source, "prompt": prior.prompt, "count": prior.images, "mask": None}
    loaded = load_examples(settings.model_copy(update=own), resolution, "data.prior.source")
    notes = [f"{len(loaded.skipped):,} class pictures cannot be decoded and are left out"] if loaded.skipped else []
    return loaded._replace(notes=notes)


def to_draw(settings: PriorSettings, given: int) -> int:
    """Return how many class pictures the base has to draw beside ``given`` ones of the user's."""
    return max(0, (settings.wanted or given) - given)


def make_prior(dataset: Dataset, given: Loaded, drawn: Sequence[Example], drawn_hash: str) -> Prior:
    """Put the class pictures together; they are cut, mirrored and captioned as the data section says.

    Args:
        dataset: the pictures to learn.
        given: from :func:`given_pictures`.
        drawn: the drawn ones, which come after those.
        drawn_hash: of the recipe that they were drawn by.
    """
    prior = dataset.settings.prior
    assert prior is not None
    own = {"prompt": prior.prompt, "validation": 0, "repeats": 1, "prior": None, "mask": None}
    examples = (*given.examples, *drawn)
    shown = Dataset(examples, (), dataset.settings.model_copy(update=own), dataset.resolution, tuple(given.skipped))
    notes = (*given.notes, *enlarged(shown, "class pictures"))
    shown = Dataset(examples, (), shown.settings, shown.resolution, shown.skipped, notes)
    parts = [*(example.sha256 for example in given.examples), drawn_hash, len(drawn)]
    return Prior(shown, prior, len(given.examples), hashlib.sha256(json.dumps(parts).encode()).hexdigest())


def _is_whole(path: Path, size: tuple[int, int]) -> bool:
    try:
        with Image.open(path) as picture:
            picture.verify()  # the checksums, without decoding
            return picture.size == size
    except (OSError, SyntaxError, ValueError):  # Pillow raises SyntaxError for a broken PNG
        return False


def _read(path: Path) -> Image.Image:
    return decode(path.read_bytes(), "white")
