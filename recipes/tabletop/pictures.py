"""Training and test pictures of the tabletop world, rendered once and shared by the scripts of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from inlay.data.tabletop import Scene, World

TRAIN, TEST = 40_000, 4_000
"""Pictures 0 to TRAIN - 1 of the part "train", and 0 to TEST - 1 of the part "test", both of seed 0."""

BUILD = Path("build/tabletop")
"""Where what is made on the way lies; git ignores it."""


def pictures(part: str, count: int, processes: int = 2) -> tuple[np.ndarray, list[str], list[Scene]]:
    """Return the first pictures of a part of the world, from the cache where it has them.

    Args:
        part: "train" or "test".
        count: how many.
        processes: how many processes render what the cache lacks.

    Returns:
        Images uint8 [count, 64, 64, 3] (memory-mapped), captions, scenes.
    """
    world = World(part)
    images, words = BUILD / f"{part}-{count}.npy", BUILD / f"{part}-{count}.json"
    if not words.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        rendered, captions, scenes = world.render_many(range(count), processes)
        np.save(images, rendered)
        # The list of captions is written last: where it lies, the pictures are complete.
        words.write_text(json.dumps({"captions": captions, "scenes": [scene.to_dict() for scene in scenes]}))
    held = json.loads(words.read_text())
    return np.load(images, mmap_mode="r"), held["captions"], [Scene.from_dict(scene) for scene in held["scenes"]]


def pixels(images: np.ndarray):
    """Return uint8 images [B, H, W, 3] as a float tensor [B, 3, H, W] in [-1, 1], channels last in memory."""
    import torch

    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == "__main__":
    for part, count in (("train", TRAIN), ("test", TEST)):
        print(part, pictures(part, count)[0].shape)
