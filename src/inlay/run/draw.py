"""Pictures from a tuned run or from a base."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from inlay.base.contract import Base
from inlay.base.families import load_base
from inlay.base.locate import CONFIGS, PLAIN
from inlay.base.plain import PlainArchitecture
from inlay.base.sampling import initial_noise, sample
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError
from inlay.objective.settings import Sampler
from inlay.run.directory import RUN_FILE, load_run
from inlay.run.pictures import Block, Row, grid, save_picture
from inlay.run.solver import make_solver


@dataclass(frozen=True)
class Drawn:
    """One picture and what it came from."""

    prompt: str
    seed: int
    pixels: np.ndarray
    """uint8 [H, W, 3]."""


def load_target(target: str | Path, device: str | None = None) -> Base:
    """Return what to draw with: a finished run directory's tuned model, or a base by its name.

    Raises:
        InlayError: neither is found, or its files are broken.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (Path(target) / RUN_FILE).is_file():
        return load_run(Path(target))[0].to(place)
    if Path(target).is_dir() and not any((Path(target) / file).is_file() for file in (CONFIGS["vae"], PLAIN)):
        raise ConfigError(f"{target}: neither a run directory (no {RUN_FILE}) nor a base (no {CONFIGS['vae']})")
    return load_base(BaseSettings(model=str(target))).to(place)


def wanted(base: Base, prompts: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return what to draw with a base, given texts and classes of which it may know neither.

    Raises:
        ConfigError: the base is told of pictures in another way, or nothing is given that it needs.
    """
    architecture = base.architecture
    if architecture.text_shape is not None:
        if classes or not prompts:
            raise ConfigError("this model is told by texts what to draw; give --prompt, and no --class")
        return list(prompts)
    if not architecture.prompt_ids:
        if prompts or classes:
            raise ConfigError("this model is unconditional; leave out --prompt and --class")
        return [""]
    if prompts and classes:
        raise ConfigError("this model is told a class; give --class alone")
    assert isinstance(architecture, PlainArchitecture)
    return list(prompts or classes or architecture.classes[:10])


def draw(
    base: Base,
    prompts: str | Sequence[str],
    pictures: int = 4,
    seed: int = 0,
    steps: int = 25,
    guidance: float | None = None,
    negative_prompt: str = "",
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    sampler: Sampler = "dpm",
) -> list[Drawn]:
    """Draw ``pictures`` pictures of each prompt; number n of each starts from the noise of ``seed`` + n.

    Args:
        base: from :func:`load_target`.
        prompts: what to draw, one text or several; of a model of classes their names or numbers, of an unconditional
            one an empty text.
        pictures: how many of each.
        seed: of the first picture.
        steps: of the sampler.
        guidance: scale of classifier-free guidance; 1 for none. By default 7 for texts, and for classes 1.5.
        negative_prompt: what guidance leads away from.
        size: (height, width) in pixels, by default the base's own.
        progress: told (denoiser calls done, in all).
        sampler: `dpm` or `heun`.

    Raises:
        ConfigError: the size does not fit the base, there is no such class or sampler, or the guidance is not finite or
            has nothing to lead to.
    """
    if sampler not in get_args(Sampler):
        raise ConfigError(f"sampler {sampler!r}: allowed: {', '.join(get_args(Sampler))}")
    prompts = [prompts] if isinstance(prompts, str) else prompts
    side, unit = base.architecture.resolution, base.architecture.granularity
    size = size or (side, side)
    if any(length < unit or length % unit for length in size):
        raise ConfigError(f"size {size[0]} x {size[1]}: height and width must be multiples of {unit} pixels here")
    if base.architecture.one_size and size != (side, side):
        raise ConfigError(f"size {size[0]} x {size[1]}: this model draws pictures of {side} x {side} pixels only")
    guidance = base.architecture.guidance if guidance is None else guidance
    if not base.architecture.prompt_ids and (guidance != 1 or any(prompts)):
        raise ConfigError("this model is unconditional: it takes no prompt, no class and no guidance")
    if not math.isfinite(guidance):
        raise ConfigError(f"guidance {guidance}: must be a finite number")
    asked = [(prompt, seed + number) for prompt in prompts for number in range(pictures)]
    noise = initial_noise(base, [number for _, number in asked], size)
    texts = [prompt for prompt, _ in asked]
    solver = make_solver(base, sampler, steps)
    images = sample(base, texts, noise, steps, guidance, negative_prompt, progress=progress, solver=solver).numpy()
    return [Drawn(prompt, number, image) for (prompt, number), image in zip(asked, images, strict=True)]


def save_drawn(drawn: Sequence[Drawn], directory: Path) -> list[Path]:
    """Write each picture as a PNG of its own, and all in one grid; existing files stay, numbers go on.

    Returns:
        The grid's path, then the pictures'.
    """
    from PIL import Image

    taken = [re.match(r"(\d{4})-", path.name) for path in directory.glob("*.png")] if directory.is_dir() else []
    first = 1 + max((int(match[1]) for match in taken if match), default=0)
    rows: dict[str, list[Drawn]] = {}
    for one in drawn:
        rows.setdefault(one.prompt, []).append(one)
    seeds = {prompt: ", ".join(str(one.seed) for one in ones) for prompt, ones in rows.items()}
    blocks = {prompt: Block(f"seeds {seeds[prompt]}", [one.pixels for one in ones]) for prompt, ones in rows.items()}
    picture = grid([Row(prompt or "untold", [block]) for prompt, block in blocks.items()])
    paths = [save_picture(picture, directory / f"{first:04d}-grid.png")]
    for number, one in enumerate(drawn, first + 1):
        slug = re.sub(r"[^a-z0-9]+", "-", one.prompt.lower()).strip("-")[:60] or "picture"
        paths.append(save_picture(Image.fromarray(one.pixels), directory / f"{number:04d}-{slug}-{one.seed}.png"))
    return paths
