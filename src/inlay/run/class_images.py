"""Pictures of the subject's class, drawn by the base before any method is attached to it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from inlay.base.contract import Base
from inlay.base.locate import Location
from inlay.base.sampling import initial_noise, sample, sampler_config, to_uint8
from inlay.base.weights import hashes
from inlay.data.dataset import Dataset
from inlay.data.prior import RECIPE, DrawnPictures, Prior, class_images_directory, given_pictures, make_prior, to_draw
from inlay.data.sources import Loaded
from inlay.data.views import center_view, pixels
from inlay.errors import DataError
from inlay.files import write_json
from inlay.randomness import derive
from inlay.run.config import JobConfig
from inlay.run.pictures import save_picture
from inlay.train.diffusion import Progress
from inlay.train.precision import autocast

DRAWN_TOGETHER = 4
"""Pictures that go through the denoiser at a time. Always whole groups, counted from picture 0: company can change a
picture's last bits, so who asks for how many must not decide it."""
SHEET_SIDE = 128
SHEET_COLUMNS = 10
SHEET_ROWS = 20


def drawn_pictures(config: JobConfig, base: Base, resolution: int, base_hash: str) -> DrawnPictures:
    """Return where a run's class pictures are kept, and what they are drawn with.

    Args:
        config: the job, with a section ``data.prior``.
        base: its configuration is enough; it may lie on the meta device.
        resolution: side in pixels.
        base_hash: SHA-256 of the base's weights.
    """
    prior = config.data.prior
    assert prior is not None
    recipe = {
        "version": 1,
        "base": base_hash,
        "tokenizer": config.base.tokenizer,
        "prompt": prior.prompt,
        "negative_prompt": prior.negative_prompt,
        "steps": prior.steps,
        "guidance": prior.guidance,
        "seed": prior.seed,
        "width": resolution,
        "height": resolution,
        "precision": config.train.precision,
        "sampler": sampler_config(base),
    }
    return DrawnPictures(json.loads(json.dumps(recipe)))  # as it comes back from a file, tuples as lists


def prepare_prior(
    config: JobConfig,
    base: Base,
    dataset: Dataset,
    given: Loaded,
    accelerator: Accelerator,
    progress: Progress,
) -> Prior:
    """Return a run's class pictures, drawing those that are neither given nor kept from an earlier run.

    Args:
        config: the job, with a section ``data.prior``.
        base: without methods, on the CPU, where it is again afterwards.
        dataset: the pictures to learn.
        given: the user's class pictures.
        accelerator: of the run; its processes share the work.
        progress: told how many pictures there are.
    """
    prior = config.data.prior
    assert prior is not None
    assert base.file_hash is not None
    drawn = drawn_pictures(config, base, dataset.resolution, base.file_hash)
    count = to_draw(prior, len(given.examples))
    with autocast(accelerator.device, config.train.precision):
        _draw(base, drawn, count, accelerator, accelerator.num_processes, progress)
        accelerator.wait_for_everyone()
        # Where processes do not share a disk, the others' pictures are not here yet.
        _draw(base, drawn, count, accelerator, 1, progress)
        accelerator.wait_for_everyone()
    return make_prior(dataset, given, drawn.examples(count), drawn.hash)


def _draw(
    base: Base, drawn: DrawnPictures, count: int, accelerator: Accelerator, shares: int, progress: Progress
) -> None:
    """Draw what is missing of the first ``count`` pictures, or of this process's share of them."""
    from PIL import Image

    recipe = drawn.recipe
    missing = drawn.missing(range(count))
    groups = sorted({index // DRAWN_TOGETHER for index in missing})
    groups = [group for group in groups if group % shares == accelerator.process_index % shares]
    if not groups:
        return
    base.to(accelerator.device)
    present = count - len(missing)
    for done, group in enumerate(groups):
        indices = range(group * DRAWN_TOGETHER, (group + 1) * DRAWN_TOGETHER)
        seeds = [derive(recipe["seed"], "class picture", index) for index in indices]
        first = present + done * DRAWN_TOGETHER * shares

        def tell(calls: int, total: int, first: int = first) -> None:
            now = first + DRAWN_TOGETHER * shares * calls // total
            progress("drawing class pictures", min(now, count if calls == total else count - 1), count)

        pictures = sample(
            base,
            [recipe["prompt"]] * DRAWN_TOGETHER,
            initial_noise(base, seeds, (recipe["height"], recipe["width"])),
            recipe["steps"],
            recipe["guidance"],
            recipe["negative_prompt"],
            progress=tell,
        )
        if not (drawn.directory / RECIPE).exists():
            write_json(drawn.directory / RECIPE, recipe)
        for index in drawn.missing(indices):
            save_picture(Image.fromarray(pictures[index - indices.start].numpy()), drawn.path(index))
    base.to("cpu")  # where methods initialise what they own, with class pictures or without


def save_contact_sheet(prior: Prior, path: Path) -> Path:
    """Write small versions of the class pictures, at most the first 200, as one PNG for the user to look at."""
    from PIL import Image, ImageDraw, ImageFont

    shown = prior.dataset.examples[: SHEET_COLUMNS * SHEET_ROWS]
    rows, gap, line = math.ceil(len(shown) / SHEET_COLUMNS), 4, 28
    cell = SHEET_SIDE + gap
    sheet = Image.new("RGB", (SHEET_COLUMNS * cell + gap, rows * cell + gap + line), "white")
    count = len(prior.dataset)
    whose = f"{prior.given} given, {count - prior.given} drawn by the base" + (
        f"; the first {len(shown)}" if len(shown) < count else ""
    )
    text = f"{prior.settings.prompt}: {count} class pictures ({whose})"
    ImageDraw.Draw(sheet).text((gap, gap), text, "black", ImageFont.load_default(16))
    for number, example in enumerate(shown):
        row, column = divmod(number, SHEET_COLUMNS)
        square = to_uint8(pixels(example, center_view(example, (SHEET_SIDE, SHEET_SIDE)))[None])[0]
        sheet.paste(Image.fromarray(square.numpy()), (gap + column * cell, line + gap + row * cell))
    return save_picture(sheet, path)


@dataclass(frozen=True)
class ClassImagesPlan:
    """The class pictures of a run; counts are null where the given ones cannot be examined here."""

    prompt: str
    weight: float
    """Factor on their mean loss."""
    pictures: int | None
    given: int | None
    """The user's own."""
    kept: int | None
    """Drawn by an earlier run."""
    to_draw: int | None
    """Still to be drawn."""
    missing: str | None
    """Why the counts are null."""


def plan_class_images(config: JobConfig, base: Base, resolution: int, location: Location) -> ClassImagesPlan | None:
    """Return what a run would do about class pictures, None where it has none.

    Args:
        config: the job.
        base: on the meta device.
        resolution: side in pixels.
        location: of the base.

    Raises:
        DataError: the given ones are there, but not as the section says.
    """
    prior = config.data.prior
    if prior is None:
        return None
    try:
        given = len(given_pictures(config.data, resolution).examples)
    except DataError as error:
        if prior.source is None or prior.source.startswith("tabletop:") or Path(prior.source).expanduser().exists():
            raise
        return ClassImagesPlan(prior.prompt, prior.weight, None, None, None, None, str(error))
    count = to_draw(prior, given)
    kept = _kept_pictures(config, base, resolution, location, count)
    return ClassImagesPlan(prior.prompt, prior.weight, given + count, given, kept, count - kept, None)


def _kept_pictures(config: JobConfig, base: Base, resolution: int, location: Location, count: int) -> int:
    """Return how many of the first ``count`` class pictures an earlier run has left.

    The base's weights are hashed only where pictures drawn with the same settings are kept at all.
    """
    if location.kind == "architecture" or count == 0:
        return 0
    wanted = drawn_pictures(config, base, resolution, "").recipe
    for path in class_images_directory().glob(f"*/{RECIPE}"):
        try:
            recipe: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if {**recipe, "base": ""} == wanted:
            drawn = drawn_pictures(config, base, resolution, hashes(location, base.components)[0])
            return count - len(drawn.missing(range(count)))
    return 0
