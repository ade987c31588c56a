"""Pictures to measure: drawn with prompts and noise that other models can be given too, or read from a source."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inlay.base.contract import Base
from inlay.base.sampling import initial_noise, sample, sampler_config, to_uint8
from inlay.data.cache import TensorCache
from inlay.data.settings import DataSettings
from inlay.data.sources import Example, load_examples
from inlay.data.views import PIXELS_VERSION, center_view, pixels
from inlay.errors import DataError
from inlay.metrics.feature_cache import NamedPictures
from inlay.randomness import derive
from inlay.run.evaluation.settings import EvaluateSettings
from inlay.run.solver import make_solver
from inlay.train.precision import Precision, autocast

GRID = re.compile(r"\d{4}-grid\.png")
"""What `inlay sample` calls its overviews, which are no pictures of a model."""


@dataclass(frozen=True)
class Shots:
    """Pictures of a model."""

    pictures: tuple[NDArray[np.uint8], ...]
    """Each [H, W, 3]."""
    prompts: tuple[str, ...] | None
    """Of each, without a new word, which no extractor knows; None where they are not known."""
    pairing: str
    """Names prompts and noise; empty where they are not known."""

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn."""

    pictures: int
    """Of each prompt."""
    steps: int
    guidance: float
    negative_prompt: str
    seed: int
    side: int
    """Height and width in pixels."""
    precision: Precision = "fp32"
    """Of the denoiser; what looks at the pictures always computes in float32."""

    @classmethod
    def of(cls, settings: EvaluateSettings, side: int, precision: Precision = "fp32") -> Drawing:
        """Return what a section asks for, at a side in pixels."""
        return cls(
            settings.pictures,
            settings.steps,
            settings.guidance,
            settings.negative_prompt,
            settings.seed,
            side,
            precision,
        )

    def draw(
        self,
        base: Base,
        prompts: Sequence[str],
        names: Sequence[str],
        progress: Callable[[int, int], None],
        purpose: str = "evaluation",
    ) -> Shots:
        """Draw pictures of each prompt.

        Args:
            base: with what is attached to it.
            prompts: what it is asked.
            names: the prompts without a new word. The pairing is named after them: a base that is asked for the class
                in place of the subject answers the same question.
            progress: told (pictures done, in all).
            purpose: another one is other noise.
        """
        seeds = [
            derive(self.seed, purpose, place, number)
            for place in range(len(prompts))
            for number in range(self.pictures)
        ]
        texts = [prompt for prompt in prompts for _ in range(self.pictures)]
        noise = initial_noise(base, seeds, (self.side, self.side))
        with autocast(base.device, self.precision):
            found = sample(
                base,
                texts,
                noise,
                self.steps,
                self.guidance,
                self.negative_prompt,
                progress=lambda done, total: progress(len(texts) * done // total, len(texts)),
                solver=make_solver(base, "dpm", self.steps),
            ).numpy()
        plain = tuple(name for name in names for _ in range(self.pictures))
        return Shots(tuple(found), plain, self.pairing(names, purpose))

    def draw_base(
        self, base: Base, prompts: Sequence[str], progress: Callable[[int, int], None], purpose: str = "evaluation"
    ) -> Shots:
        """Draw pictures with a base as it was before it learned anything, or find them in the cache.

        Every run of a base is held against the same pictures; in a study of hundreds they are drawn once.

        Args:
            base: what is attached to it is disabled.
            prompts: what it is asked.
            progress: as in :meth:`draw`.
            purpose: as in :meth:`draw`.
        """
        if "unet" not in base.part_hashes:  # a denoiser from scratch, which no file names
            return self.draw(base, prompts, prompts, progress, purpose)
        pairing = self.pairing(prompts, purpose)
        about = {
            "base": base.part_hashes,
            "sampler": sampler_config(base),
            "tokens": base.tokenize(prompts).tolist(),
            "pairing": pairing,
            "precision": self.precision,
            "device": base.device.type,
        }
        cache = TensorCache(f"base pictures 1 {json.dumps(about, sort_keys=True)}")

        def drawn(keys: Sequence[str]) -> dict[str, Tensor]:
            shots = self.draw(base, prompts, prompts, progress, purpose)
            return {"picture": torch.from_numpy(np.stack(shots.pictures))}

        keys = [str(place) for place in range(len(prompts) * self.pictures)]
        cache.build(keys, drawn, len(keys))  # together, since company can change a picture's last bits
        names = tuple(prompt for prompt in prompts for _ in range(self.pictures))
        return Shots(tuple(cache.get(keys)["picture"].numpy()), names, pairing)

    def pairing(self, names: Sequence[str], purpose: str = "evaluation") -> str:
        """Return what prompts and noise are called: equal where two models were asked the same in the same way."""
        about = [list(names), self.pictures, self.steps, self.guidance, self.negative_prompt, self.seed, self.side]
        return hashlib.sha256(json.dumps([purpose, *about]).encode()).hexdigest()[:16]


def shown(examples: Sequence[Example], side: int) -> tuple[NDArray[np.uint8], ...]:
    """Return the middles of pictures of a source as a model sees them, uint8 [side, side, 3]."""
    squares = (pixels(example, center_view(example, (side, side))) for example in examples)
    return tuple(to_uint8(square[None])[0].numpy() for square in squares)


def read_source(source: str, count: int, side: int, key: str) -> tuple[NamedPictures, list[str] | None]:
    """Return the pictures of a folder or another source, as they are, with their captions where all have one.

    Each picture is looked at now and read when it is asked for.

    Args:
        source: as in ``data.source``.
        count: at most so many.
        side: in pixels, at which the rendered world draws.
        key: what names the source, for messages.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    captioned = True
    settings = DataSettings(source=source, count=count)
    try:
        loaded = load_examples(settings, side, key)
    except DataError as error:
        if not Path(source).expanduser().is_dir() or "caption" not in str(error):
            raise
        # Pictures without captions can be measured too, only not against prompts.
        captioned = False
        loaded = load_examples(DataSettings(source=source, count=count, prompt="none"), side, key)
    kept = [example for example in loaded.examples if not GRID.fullmatch(example.id.rpartition("/")[2])]
    if not kept:
        raise DataError(f"{key}: {source} holds no pictures")
    names = [f"{example.sha256}:{settings.background}:v{PIXELS_VERSION}" for example in kept]
    found = NamedPictures(names, lambda place: np.asarray(kept[place].open(), dtype=np.uint8))
    return found, [example.caption for example in kept] if captioned else None
