"""Training and test pictures of the tabletop world, rendered once and shared by the scripts of this folder."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inlay.data.farm import Farm, cores
from inlay.data.tabletop import Scene, World

if TYPE_CHECKING:
    import torch

TRAIN, TEST = (256, 512) if os.environ.get("MINIATURE") else (40_000, 4_000)
"""Pictures 0 to TRAIN - 1 of the part "train", and 0 to TEST - 1 of the part "test", both of seed 0.

Another number of training pictures is given to every script as `--images`, and to `denoiser.yaml` as `data.count`.
MINIATURE is that of build.sh.
"""

BUILD = Path("build/tabletop")
"""Where what is made on the way lies; git ignores it."""


def pictures(part: str, count: int) -> tuple[np.ndarray, list[str], list[Scene]]:
    """Return the first pictures of a part of the world, from the cache where it has them; else all cores draw them.

    Args:
        part: "train" or "test".
        count: how many.

    Returns:
        Images uint8 [count, 64, 64, 3] (memory-mapped), captions, scenes.
    """
    images, words = BUILD / f"{part}-{count}.npy", BUILD / f"{part}-{count}.json"
    if not words.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        captions, scenes = draw(World(part), count, images)
        # The list of captions is written last: where it lies, the pictures are complete.
        words.write_text(json.dumps({"captions": captions, "scenes": [scene.to_dict() for scene in scenes]}))
    held = json.loads(words.read_text())
    return np.load(images, mmap_mode="r"), held["captions"], [Scene.from_dict(scene) for scene in held["scenes"]]


def draw(world: World, count: int, path: Path) -> tuple[list[str], list[Scene]]:
    """Write the first pictures of a part to a file of numpy, and return their captions and scenes."""
    drawn = np.lib.format.open_memmap(path, "w+", np.uint8, (count, world.size, world.size, 3))
    with closing(Farm(cores())) as farm:
        farm.fill(drawn, world, range(count))
    drawn.flush()
    described = [world.describe(index) for index in range(count)]
    return [caption for _, caption in described], [scene for scene, _ in described]


def pixels(images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return uint8 images [B, H, W, 3] as a float tensor [B, 3, H, W] in [-1, 1], channels last in memory."""
    import torch

    return torch.tensor(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def main() -> None:
    """Draw both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=TRAIN)
    args = parser.parse_args()
    for part, count in (("train", args.images), ("test", TEST)):
        print(part, pictures(part, count)[0].shape)


if __name__ == "__main__":
    main()
