"""The world as indexed parts: pictures with captions and their recipes."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from random import Random

import numpy as np

from inlay.data.tabletop.captions import caption
from inlay.data.tabletop.draw import draw_scene, draw_subject
from inlay.data.tabletop.render import coverage, render
from inlay.data.tabletop.scene import VEHICLES, Scene
from inlay.data.tabletop.subjects import SUBJECTS
from inlay.errors import DataError
from inlay.randomness import derive

DOMAINS = ("sketch", "vehicles", "gold")
"""A drawing style, a family of things and a material that pretraining never shows."""
_DOMAIN_SCENES: dict[str, dict] = {
    "sketch": {"style": "sketch"},
    "vehicles": {"kinds": VEHICLES},
    "gold": {"material": "gold"},
}


@dataclass(frozen=True)
class Picture:
    """A rendered scene: image uint8 [H, W, 3], its caption, and its recipe."""

    image: np.ndarray
    caption: str
    scene: Scene


LENGTHS: dict[str, int] = {
    "train": 1_000_000,
    "test": 100_000,
    **{f"subject/{name}": 5 for name in SUBJECTS},
    **{f"domain/{name}/train": 500 for name in DOMAINS},
    **{f"domain/{name}/reference": 2_000 for name in DOMAINS},
}
"""Every part of the world and how many pictures it has."""


class World:
    """One part of the world; each picture follows from (part, seed, index) alone.

    Parts differ in their random streams, so "test" shares no scene with "train", nor "reference" with a domain's
    "train". Pretraining uses "train"; no subject and no domain occurs in it.

    Args:
        part: a key of `LENGTHS`: "train", "test", "subject/<name>", "domain/<name>/train", "domain/<name>/reference".
        seed: another seed is another set of pictures of the same kind.
        size: height and width in pixels.

    Raises:
        DataError: the part does not exist.
    """

    def __init__(self, part: str = "train", seed: int = 0, size: int = 64):
        if part not in LENGTHS:
            raise DataError(f'The tabletop world has no part "{part}". Allowed: {", ".join(LENGTHS)}.')
        self.part, self.seed, self.size = part, seed, size
        self._length = LENGTHS[part]

    def __len__(self) -> int:
        return self._length

    def describe(self, index: int) -> tuple[Scene, str]:
        """Return the scene and caption at an index, without rendering."""
        index = operator.index(index)
        if not 0 <= index < self._length:
            raise IndexError(f"index {index} is outside part {self.part} of {self._length} pictures")
        draw = Random(derive(self.seed, f"tabletop/{self.part}", index))
        kind, _, name = self.part.partition("/")
        if kind == "subject":
            return draw_subject(draw, name, index), "a photo of a toy"
        scene = draw_scene(draw, **_DOMAIN_SCENES[name.split("/")[0]] if kind == "domain" else {})
        return scene, caption(scene, draw)

    def __getitem__(self, index: int) -> Picture:
        scene, text = self.describe(index)
        return Picture(render(scene, self.size), text, scene)

    def mask(self, index: int) -> np.ndarray:
        """Return where the things of the picture at an index are: uint8 [size, size], 255 where nothing else shows."""
        return coverage(self.describe(index)[0], self.size)

    def render_many(self, indices: Iterable[int], processes: int = 1) -> tuple[np.ndarray, list[str], list[Scene]]:
        """Render several pictures.

        Args:
            indices: which.
            processes: how many processes render; the answer does not depend on it.

        Returns:
            Images uint8 [N, size, size, 3], captions, scenes, in the order of the indices.
        """
        wanted = [operator.index(index) for index in indices]
        described = [self.describe(index) for index in wanted]
        images = np.zeros((len(wanted), self.size, self.size, 3), np.uint8)
        if processes > 1 and len(wanted) > 1:
            from inlay.data.farm import Farm  # whose processes draw with this class

            with closing(Farm(processes)) as farm:
                farm.fill(images, self, wanted)
        else:
            for place, (scene, _) in enumerate(described):
                images[place] = render(scene, self.size)
        return images, [text for _, text in described], [scene for scene, _ in described]
