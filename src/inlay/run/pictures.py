"""Pictures of a run that a person reads at a glance: sample grids and the loss curve."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

GAP = 4
"""Pixels between pictures."""
BLOCK_GAP = 20
"""Pixels between blocks of a row."""
TEXT = 16
"""Height of the letters in pixels."""
CELLS = "inlay.cells"
"""Key of the text in a grid's PNG that says where its pictures lie, so that programs can take them out again."""


@dataclass
class Block:
    """Pictures that stand side by side under one heading."""

    heading: str
    pictures: Sequence[np.ndarray]
    """Each uint8 [H, W, 3]."""


@dataclass
class Row:
    """Blocks that belong to one line of text."""

    label: str
    blocks: Sequence[Block]


def grid(rows: Sequence[Row]) -> Image:
    """Lay rows of blocks of pictures out with their texts; small pictures are enlarged, large ones reduced."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(TEXT)
    side = max(picture.shape[0] for row in rows for block in row.blocks for picture in block.pictures)
    scale = max(1, round(144 / side)) if side < 144 else min(1.0, 256 / side)
    line = TEXT + 8

    def shown(picture: np.ndarray) -> Image:
        height, width = picture.shape[:2]
        method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        return Image.fromarray(picture).resize((round(width * scale), round(height * scale)), method)

    prepared = [[(b.heading, [shown(p) for p in b.pictures]) for b in row.blocks] for row in rows]

    def block_width(pictures: Sequence[Image]) -> int:
        return sum(p.width for p in pictures) + GAP * (len(pictures) - 1)

    widths = [sum(block_width(p) for _, p in blocks) + BLOCK_GAP * (len(blocks) - 1) for blocks in prepared]
    texts = max(math.ceil(font.getlength(row.label)) for row in rows)
    width = max([*widths, texts]) + 2 * BLOCK_GAP
    heights = [2 * line + max(p.height for _, pictures in blocks for p in pictures) + GAP for blocks in prepared]
    canvas = Image.new("RGB", (width, sum(heights) + 2 * GAP), "white")
    draw = ImageDraw.Draw(canvas)
    cells = []
    top = GAP
    for row, blocks, height in zip(rows, prepared, heights, strict=True):
        draw.text((BLOCK_GAP, top + 4), row.label, "black", font)
        left = BLOCK_GAP
        for heading, pictures in blocks:
            draw.text((left, top + line), heading, "#666666", font)
            for picture in pictures:
                canvas.paste(picture, (left, top + 2 * line))
                box = [left, top + 2 * line, left + picture.width, top + 2 * line + picture.height]
                cells.append({"row": row.label, "block": heading, "box": box, "scale": scale})
                left += picture.width + GAP
            left += BLOCK_GAP - GAP
        top += height
    canvas.info[CELLS] = json.dumps(cells)
    return canvas


def save_picture(picture: Image, path: Path) -> Path:
    """Write a PNG atomically; of a :func:`grid` also where its pictures lie."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    if CELLS in picture.info:
        texts.add_itxt(CELLS, picture.info[CELLS])
    return write_atomically(path, lambda place: picture.save(place, format="PNG", pnginfo=texts))


def read_grid(path: Path) -> dict[tuple[str, str], list[np.ndarray]]:
    """Return the pictures of a saved grid by (label of the row, heading of the block), each uint8 [H, W, 3].

    Small pictures, which the grid shows enlarged, come back bit for bit, large ones as small as the grid shows them.
    Empty when the file does not say where its pictures lie.
    """
    import numpy as np
    from PIL import Image

    found: dict[tuple[str, str], list[np.ndarray]] = {}
    with Image.open(path) as picture:
        pixels = picture.convert("RGB")
        for cell in json.loads(picture.info.get(CELLS, "[]")):
            shown = pixels.crop(tuple(cell["box"]))
            if cell["scale"] > 1:
                size = (round(shown.width / cell["scale"]), round(shown.height / cell["scale"]))
                shown = shown.resize(size, Image.Resampling.NEAREST)
            found.setdefault((cell["row"], cell["block"]), []).append(np.asarray(shown))
    return found


def draw_loss(trace: Sequence[dict[str, Any]], path: Path) -> Path:
    """Plot the loss of every step, its moving average, and the validation loss where there is one."""
    from matplotlib.figure import Figure

    steps = [entry["step"] for entry in trace]
    losses = [entry["loss"] for entry in trace]
    window = max(1, len(losses) // 20)
    sums = [0.0, *accumulate(losses)]
    firsts = [max(0, end - window) for end in range(1, len(sums))]
    averages = [(sums[end] - sums[first]) / (end - first) for end, first in enumerate(firsts, 1)]
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="#b8c4d6", linewidth=0.8, label="each step")
    axes.plot(steps, averages, color="#1f4e96", linewidth=1.8, label=f"mean of {window} steps")
    held_out = [
        (entry["step"], entry["validation_loss"]) for entry in trace if entry.get("validation_loss") is not None
    ]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color="#c2571a", markersize=4, label="held-out pictures")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0, top=max(averages) * 1.6 if averages else None)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return write_atomically(path, lambda place: figure.savefig(place, format="png"))
