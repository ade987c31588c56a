"""A data set in training order: which pictures, cut how, with which captions, at a given step."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from inlay.data.buckets import bucket_sizes, nearest_bucket
from inlay.data.settings import DataSettings
from inlay.data.sources import Example, Skipped, load_examples
from inlay.data.views import PIXELS_VERSION, View, center_view, placed_view
from inlay.errors import DataError
from inlay.randomness import derive, stream


@dataclass(frozen=True)
class Item:
    """One picture's place in a batch."""

    example_index: int
    """Index into :attr:`Dataset.examples`; -1 for a picture that is held out."""
    example: Example
    """The picture."""
    view: View
    """The cut to show."""
    caption: str
    """The caption to show; empty where dropout struck."""
    index: int
    """How many pictures training saw before this one."""


@dataclass(frozen=True)
class Batch:
    """The pictures of one optimizer step over all processes; all of one size."""

    items: tuple[Item, ...]
    size: tuple[int, int]
    """(height, width) in pixels."""
    seed: int
    """What the pictures were chosen from; their noise and timesteps are drawn from it too."""


@dataclass(frozen=True)
class Dataset:
    """Training and validation pictures, and the order in which training sees them.

    The order is a function of (seed, step, batch size) alone, so a resumed run goes on where it was. The pictures come
    in passes, each a shuffle of all of them; ``repeats`` passes are an epoch, and batches run across the passes'
    borders. A picture's crop, flip and caption dropout depend on (seed, pass, picture), not on the batch size.

    With buckets each bucket has its own passes. The buckets take turns so that in as many steps as there are training
    pictures every bucket fills exactly as many batches as it has pictures: each picture is then seen ``batch_size``
    times, as without buckets.
    """

    examples: tuple[Example, ...]
    """The pictures to train on."""
    validation: tuple[Example, ...]
    """The pictures held out."""
    settings: DataSettings
    """The section it was made from."""
    resolution: int
    """Side of a square training picture in pixels."""
    skipped: tuple[Skipped, ...] = ()
    """Pictures that could not be decoded."""
    notes: tuple[str, ...] = ()
    """What the user should know though nothing is wrong."""
    buckets: tuple[tuple[tuple[int, int], tuple[int, ...]], ...] = field(init=False, repr=False)
    """Each size (height, width) in use, and the indices of its examples."""
    hash: str = field(init=False)
    """SHA-256 of everything that decides what training can see: contents, captions, split and settings."""

    def __post_init__(self) -> None:
        members: dict[tuple[int, int], list[int]] = {}
        for index, example in enumerate(self.examples):
            members.setdefault(self.size(example), []).append(index)
        buckets = tuple((size, tuple(members[size])) for size in sorted(members))
        object.__setattr__(self, "buckets", buckets)
        object.__setattr__(self, "hash", self._hash())

    def __len__(self) -> int:
        """Return the number of training pictures."""
        return len(self.examples)

    @property
    def images_per_epoch(self) -> int:
        """How many pictures an epoch shows."""
        return len(self.examples) * self.settings.repeats

    @property
    def cacheable(self) -> bool:
        """Whether every picture has a finite number of views, so that latents can be computed once."""
        return self.settings.crop == "center"

    def size(self, example: Example) -> tuple[int, int]:
        """Return the size (height, width) in pixels at which a picture, of either split, is used."""
        if not self.settings.buckets:
            return self.resolution, self.resolution
        return nearest_bucket(example.width, example.height, _sizes(self.resolution, self.settings.bucket_step))

    def views(self, index: int) -> tuple[View, ...]:
        """Return every view that training example ``index`` can take.

        Raises:
            ValueError: crops are random, see :attr:`cacheable`.
        """
        if not self.cacheable:
            raise ValueError("with data.crop=random the views of a picture cannot be listed")
        example, flip = self.examples[index], self.settings.horizontal_flip
        flips = (False,) if flip == 0 else (True,) if flip == 1 else (False, True)
        return tuple(center_view(example, self.size(example), mirrored) for mirrored in flips)

    def pixel_key(self, example: Example, view: View) -> str:
        """Return a key that names the values of ``pixels(example, view)``."""
        return f"{example.sha256}:{self.settings.background}:{view}:v{PIXELS_VERSION}"

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        """Return what optimizer step ``step``, counted from 0, sees.

        Args:
            seed: the run's seed.
            step: the optimizer step.
            batch_size: pictures a step, over all processes and accumulated micro-batches.
        """
        turns = _turns(seed, step // len(self.examples), tuple(len(members) for _, members in self.buckets))
        cycle, place = divmod(step, len(self.examples))
        bucket, turn = turns[place]
        size, members = self.buckets[bucket]
        first = (cycle * len(members) + turn) * batch_size
        items = []
        for offset in range(batch_size):
            round_, position = divmod(first + offset, len(members))
            example_index = members[_shuffle(seed, bucket, round_, len(members))[position]]
            items.append(self._item(seed, round_, example_index, size, step * batch_size + offset))
        return Batch(tuple(items), size, seed)

    def _item(self, seed: int, round_: int, example_index: int, size: tuple[int, int], index: int) -> Item:
        settings, example = self.settings, self.examples[example_index]

        def uniform(purpose: str) -> float:
            return derive(seed, purpose, round_, example_index) / 2**63

        down, right = (0.5, 0.5) if settings.crop == "center" else (uniform("crop down"), uniform("crop right"))
        view = placed_view(example, size, down, right, flip=uniform("flip") < settings.horizontal_flip)
        caption = "" if uniform("caption dropout") < settings.caption_dropout else example.caption
        return Item(example_index, example, view, caption, index)

    def _hash(self) -> str:
        names = ["crop", "horizontal_flip", "background", "buckets", "bucket_step", "caption_dropout", "repeats"]
        contents: dict[str, Any] = {
            "pixels": PIXELS_VERSION,
            "resolution": self.resolution,
            "settings": {name: getattr(self.settings, name) for name in names},
            "examples": [(example.sha256, example.caption) for example in self.examples],
            "validation": [(example.sha256, example.caption) for example in self.validation],
        }
        if self.settings.mask is not None:
            masks = [example.mask.sha256 if example.mask else None for example in self.examples]
            contents["masks"] = [self.settings.mask.outside, masks]
        return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def load_dataset(settings: DataSettings, resolution: int, seed: int = 0, multiple: int = 8) -> Dataset:
    """Examine the pictures of ``settings.source`` and split off the validation pictures.

    Args:
        settings: the data section.
        resolution: side in pixels to use when the section does not give one, usually the base's own.
        seed: decides which pictures are held out, together with their contents: the same ones in any order and under
            any name, and copies of a picture fall on the same side.
        multiple: pixels; the sides of the buckets are multiples of it where the section does not say of what.

    Raises:
        DataError: see :func:`inlay.data.sources.load_examples`; or nothing is left to train on.
    """
    resolution = settings.resolution or resolution
    if settings.buckets and settings.bucket_step is None:
        step = max(1, resolution // 8 // multiple) * multiple
        settings = settings.model_copy(update={"bucket_step": step})
    examples, skipped, notes = load_examples(settings, resolution)
    held_out = _held_out(examples, settings.validation, seed)
    train = tuple(example for example in examples if example.sha256 not in held_out)
    if not train:
        raise DataError(
            f"data.validation={settings.validation} holds out all {len(examples)} pictures of {settings.source}; "
            "leave at least one to train on"
        )
    validation = tuple(example for example in examples if example.sha256 in held_out)
    dataset = Dataset(train, validation, settings, resolution, tuple(skipped), tuple(notes))
    return replace(dataset, notes=(*notes, *enlarged(dataset)))


def _held_out(examples: Sequence[Example], validation: float, seed: int) -> set[str]:
    wanted = validation if isinstance(validation, int) else max(1, round(validation * len(examples)))
    held_out: set[str] = set()

    def drawn(example: Example) -> bytes:
        return hashlib.sha256(f"{seed}:{example.lot or example.sha256}".encode()).digest()

    for example in sorted(examples, key=drawn)[:wanted]:
        held_out.add(example.sha256)
    return held_out


def enlarged(dataset: Dataset, what: str = "pictures") -> list[str]:
    """Return a note on the pictures that are smaller than they are trained at, where there are any."""
    small = []
    for example in dataset.examples:
        height, width = dataset.size(example)
        if example.height < height or example.width < width:
            small.append(example)
    if not small:
        return []
    least = min(small, key=lambda example: example.width * example.height)
    return [
        f"{len(small):,} of {len(dataset):,} {what} are smaller than they are trained at and are enlarged, which "
        f"blurs them; the smallest is {least.id} ({least.width} x {least.height} pixels)"
    ]


@lru_cache(maxsize=8)
def _sizes(resolution: int, step: int | None) -> list[tuple[int, int]]:
    return bucket_sizes(resolution, step)


@lru_cache(maxsize=32)
def _shuffle(seed: int, bucket: int, round_: int, count: int) -> array[int]:
    # An array of four or eight bytes a number: lists of a million numbers would fill gigabytes here.
    return array("q", torch.randperm(count, generator=stream(seed, "shuffle", bucket, round_)).numpy().tobytes())


@lru_cache(maxsize=4)
def _turns(seed: int, cycle: int, counts: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return (bucket, how many turns it had before in this cycle) for each step of a cycle.

    Bucket b's turns are spread evenly: one at random in each of its counts[b] equal parts of the cycle.
    """
    if len(counts) == 1:
        return [(0, turn) for turn in range(counts[0])]
    moments = []
    for bucket, count in enumerate(counts):
        draws = torch.rand(count, generator=stream(seed, "bucket turns", bucket, cycle), dtype=torch.float64)
        moments.extend(
            (moment, bucket, turn) for turn, moment in enumerate(((torch.arange(count) + draws) / count).tolist())
        )
    return [(bucket, turn) for _, bucket, turn in sorted(moments)]
