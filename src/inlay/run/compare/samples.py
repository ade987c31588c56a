"""Pictures of runs for the same prompts from the same noise: those that the runs have drawn, or drawn anew."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.errors import ConfigError, InlayError
from inlay.run.compare.gather import Run
from inlay.run.layout import PREVIEWS, SAMPLES
from inlay.run.pictures import read_grid

if TYPE_CHECKING:
    import numpy as np

    from inlay.base.contract import Base
    from inlay.run.reporter import Reporter

DRAW_ANEW = "`inlay compare --draw` draws with the models"


@dataclass(frozen=True)
class Wanted:
    """What to draw with every run's model."""

    prompts: tuple[str, ...] = ()
    """By default those of the first run's previews."""
    pictures: int = 3
    """Of each prompt; number n starts from the noise of seed + n."""
    seed: int = 0
    steps: int = 25
    guidance: float | None = None
    """Scale of classifier-free guidance; by default that of the first run's previews."""


@dataclass(frozen=True)
class Shown:
    """One run's pictures, or why there are none."""

    pictures: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """By prompt, in the order of the noise."""
    note: str = ""


@dataclass(frozen=True)
class Samples:
    """Pictures side by side. Those in one place come from the same noise."""

    says: str
    """Where they come from."""
    prompts: tuple[str, ...]
    before: Shown
    """Of the base."""
    runs: tuple[Shown, ...]
    training: list[np.ndarray]
    """Some of the pictures that the runs learned; empty where they are not the same ones."""


def own_previews(runs: Sequence[Run]) -> Samples:
    """Return what the runs drew themselves, of those whose prompts and noise are the first one's."""
    grids = [_read(run.directory / SAMPLES) for run in runs]
    known = [index for index, run in enumerate(runs) if run.done and grids[index]]
    training = _training(runs, grids)
    if not known:
        reason = run_reason(runs[0]) if len(runs) == 1 else "no run has pictures of its own"
        nothing = tuple(Shown(note=run_reason(run)) for run in runs)
        return Samples(f"{reason}; {DRAW_ANEW}.", (), Shown(), nothing, training)
    first = known[0]
    like = _noise(runs[first])
    shown = []
    for index, run in enumerate(runs):
        if _noise(run) != like:
            apart = "prompts, noise, guidance or size" if run.record else "settings"
            shown.append(Shown(note=f"its previews have other {apart}; {DRAW_ANEW}"))
        elif index in known:
            shown.append(Shown(_block(grids[index], "after")))
        else:
            shown.append(_latest_preview(run))
    before = _block(grids[first], "before")
    if any(run.at("base", "hash") != runs[first].at("base", "hash") for run in runs if run.done):
        before = {}  # there is no one base
    says = "Drawn by the runs when they ended. Pictures in one row come from the same noise."
    return Samples(says, tuple(_block(grids[first], "after")), Shown(before), tuple(shown), training)


def run_reason(run: Run) -> str:
    """Return why a run has no pictures of its own."""
    return run.says or f"its {SAMPLES} is missing or does not say where its pictures lie"


def draw_anew(runs: Sequence[Run], wanted: Wanted, reporter: Reporter) -> Samples:
    """Draw with every finished run's model, and with the base, from the same noise; what was drawn before is kept.

    A run whose model cannot be loaded is shown with the reason.

    Raises:
        ConfigError: no run has finished.
    """
    finished = [run for run in runs if run.done]
    if not finished:
        raise ConfigError("--draw: none of the runs has finished, so there is no model to draw with")
    first = finished[0]
    prompts = wanted.prompts or _preview_prompts(first)
    guidance = wanted.guidance
    if guidance is None:
        guidance = float(first.setting("preview", "guidance") or 7.0)
    shown = []
    for run in runs:
        if not run.done:
            shown.append(Shown(note=run.says))
            continue
        reporter.phase(f"pictures of {run.name}")
        try:
            shown.append(Shown(_cached(run, _result_hash(run), False, prompts, wanted, guidance, reporter)))
        except (OSError, InlayError) as error:  # its files are gone, or its base has changed since
            reporter.note(f"{run.name} cannot draw: {error}")
            shown.append(Shown(note=f"cannot draw: {error}"))
    before = Shown()
    drew = any(one.pictures for one in shown)
    if drew and len({run.at("base", "hash") for run in finished}) == 1 and first.at("kind") != "pretrain":
        reporter.phase("pictures of the base")
        before = Shown(_cached(first, str(first.at("base", "hash")), True, prompts, wanted, guidance, reporter))
    says = (
        f"Drawn for this page by every run's model: seeds {wanted.seed} to {wanted.seed + wanted.pictures - 1}, "
        f"{wanted.steps} steps, guidance {guidance:g}. Pictures in one row come from the same noise."
    )
    grids = [_read(run.directory / SAMPLES) for run in runs]
    return Samples(says, tuple(prompts), before, tuple(shown), _training(runs, grids))


def _cached(
    run: Run, identity: str, plain: bool, prompts: Sequence[str], wanted: Wanted, guidance: float, reporter: Reporter
) -> dict[str, list[np.ndarray]]:
    """Return pictures by prompt, loading a model only when one of them is not in the cache."""
    import torch

    from inlay.data.cache import TensorCache
    from inlay.run.draw import draw

    cache = TensorCache(f"compared pictures 1 {identity} {wanted.steps} {guidance}")
    model: Base | None = None
    found = {}
    for prompt in prompts:
        keys = {_key(prompt, wanted.seed + n): wanted.seed + n for n in range(wanted.pictures)}

        def compute(batch: Sequence[str], keys: dict[str, int] = keys, prompt: str = prompt) -> dict[str, torch.Tensor]:
            nonlocal model
            model = model or _load(run, plain)
            told = lambda done, total: reporter.progress("drawing", done, total)  # noqa: E731
            # The seeds of a batch follow each other.
            drawn = draw(model, prompt, len(batch), keys[batch[0]], wanted.steps, guidance, progress=told)
            return {"pixels": torch.stack([torch.from_numpy(one.pixels) for one in drawn])}

        cache.build(keys, compute)
        found[prompt] = list(cache.get(list(keys))["pixels"].numpy())
    return found


def _load(run: Run, plain: bool) -> Base:
    """Return a run's tuned model, or the base that it was tuned from."""
    from inlay.base.families import load_base
    from inlay.run.directory import read_config
    from inlay.run.draw import load_target

    if not plain:
        return load_target(run.directory)
    import torch

    base = load_base(read_config(run.directory).base)
    if base.file_hash != run.at("base", "hash"):
        raise ConfigError(f"{base.name}: its weights have changed since {run.name} was tuned from it")
    return base.to("cuda" if torch.cuda.is_available() else "cpu")


def _key(prompt: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {prompt}".encode()).hexdigest()


def _result_hash(run: Run) -> str:
    """Return the hash of all that a run's pictures depend on: its files, and the base below them."""
    total = hashlib.sha256(f"{run.at('base', 'hash')} {run.at('config_hash')}".encode())
    for name in run.at("files") or []:
        place = run.directory / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _preview_prompts(run: Run) -> tuple[str, ...]:
    stated = run.setting("preview", "prompts") or [run.setting("data", "prompt")]
    prompts = tuple(prompt for prompt in stated if prompt)
    return prompts or tuple(_block(_read(run.directory / SAMPLES), "after")) or ("",)


def _noise(run: Run) -> dict[str, Any]:
    """Return all that decides which pictures of two runs come from the same prompts and noise."""
    preview = {key: value for key, value in (run.setting("preview") or {}).items() if key != "every"}
    if preview.get("prompts") is None:  # then they are the captions
        preview["data"] = run.setting("data", "prompt") or run.setting("data", "source")
    return {**preview, "resolution": run.setting("data", "resolution")}


def _read(path: Path) -> dict[tuple[str, str], list[np.ndarray]]:
    try:
        return read_grid(path)
    except (OSError, ValueError, KeyError, InlayError):  # not there, or no picture of inlay's
        return {}


def _block(grid: dict[tuple[str, str], list[np.ndarray]], heading: str) -> dict[str, list[np.ndarray]]:
    """Return the pictures under one heading by prompt; runs without a base to show call what they drew samples."""
    wanted = ("after", "samples") if heading == "after" else (heading,)
    return {row: pictures for (row, block), pictures in grid.items() if block in wanted or _is_step(block, heading)}


def _is_step(block: str, heading: str) -> bool:
    return heading == "step" and re.fullmatch(r"step \d+", block) is not None


def _latest_preview(run: Run) -> Shown:
    paths = sorted((run.directory / PREVIEWS).glob("step-*.png"))
    pictures = _block(_read(paths[-1]), "step") if paths else {}
    if not pictures:
        return Shown(note=run_reason(run))
    return Shown(pictures, f"drawn at step {int(paths[-1].stem.partition('-')[2])}")


def _training(runs: Sequence[Run], grids: Sequence[dict[tuple[str, str], list[np.ndarray]]]) -> list[np.ndarray]:
    """Return the training pictures in the first grid that shows them, when all runs learned the same ones."""
    if len({run.at("data", "hash") for run in runs if run.record}) > 1:
        return []
    for grid in grids:
        for (_, block), pictures in grid.items():
            if re.fullmatch(r"\d+ of \d+", block):
                return pictures
    return []
