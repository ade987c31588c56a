"""The pictures that a run draws of its own prompts: before training, meanwhile, and at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from inlay.base.contract import Base
from inlay.base.sampling import initial_noise, sample, to_uint8
from inlay.data.dataset import Dataset
from inlay.data.views import center_view, pixels
from inlay.randomness import derive
from inlay.run.config import PreviewSettings
from inlay.run.pictures import Block, Row, grid, save_picture
from inlay.run.reporter import Reporter
from inlay.run.solver import make_solver


class Previews:
    """Draws a run's prompts, from the same noise each time."""

    def __init__(
        self,
        settings: PreviewSettings,
        base: Base,
        dataset: Dataset,
        captions: Sequence[str],
        autocast: Callable[[], AbstractContextManager[Any]],
        reporter: Reporter,
    ):
        """Remember what is to be drawn.

        Args:
            settings: the section `preview` of the run file.
            base: draws, with whatever is attached to it.
            dataset: the pictures that training shows.
            captions: theirs, each once; drawn where the settings name no prompts.
            autocast: gives the context of the run's precision.
            reporter: told how drawing goes.
        """
        self.settings = settings
        self.base = base
        self.dataset = dataset
        self.autocast = autocast
        self.reporter = reporter
        # Some captions, or some classes in their order.
        own = captions[:4] if base.architecture.text_shape is not None else sorted(captions)[:10]
        self.prompts = [prompt for prompt in settings.prompts or own for _ in range(settings.pictures)]

    def draw(self) -> torch.Tensor:
        """Return a picture for each of `prompts`, uint8 [N, H, W, 3]."""
        settings, side = self.settings, self.dataset.resolution
        seeds = [derive(settings.seed, "preview", number) for number in range(settings.pictures)]
        noise = initial_noise(self.base, seeds, (side, side))
        noise = noise.repeat(len(self.prompts) // settings.pictures, 1, 1, 1)
        with self.autocast():
            return sample(
                self.base,
                self.prompts,
                noise,
                settings.steps,
                settings.guidance,
                settings.negative_prompt,
                progress=lambda done, total: self.reporter.progress("drawing previews", done, total),
                solver=make_solver(self.base, settings.sampler, settings.steps),
            )

    def save_step(self, step: int, path: Path) -> None:
        """Draw and save what the model makes of the prompts after some steps."""
        save_picture(grid(self._rows(f"step {step}", self.draw(), None)), path)

    def save_samples(self, before: torch.Tensor | None, path: Path) -> None:
        """Draw and save what the model makes of the prompts, below some pictures that it was trained on.

        Args:
            before: what the base made of them, from :meth:`draw`; None where there is no base to show.
            path: of the picture.
        """
        shown = self.dataset.examples[: 2 * self.settings.pictures]
        squares = [pixels(example, center_view(example, self.dataset.size(example))) for example in shown]
        training = [to_uint8(square[None])[0].numpy() for square in squares]
        rows = [Row("pictures it was trained on", [Block(f"{len(shown)} of {len(self.dataset)}", training)])]
        rows += self._rows("after" if before is not None else "samples", self.draw(), before)
        save_picture(grid(rows), path)

    def _rows(self, heading: str, pictures: torch.Tensor, before: torch.Tensor | None) -> list[Row]:
        count = self.settings.pictures
        rows = []
        for first in range(0, len(self.prompts), count):
            part = slice(first, first + count)
            blocks = [] if before is None else [Block("before", list(before[part].numpy()))]
            blocks.append(Block(heading, list(pictures[part].numpy())))
            rows.append(Row(self.prompts[first] or "untold", blocks))
        return rows
