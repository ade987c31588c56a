"""Where does the identifier act? A tuned model's noise prediction under the prompt with and without it.

Source: arXiv 2303.18181, figures 10 and 11, which noise a picture of the class and show the difference as a map.
Timesteps, noise and measure are left open there. Here both prompts see the same noise, without guidance, at several
timesteps; the measure is the mean absolute difference, and the base is measured beside the runs, because to it, too,
another prompt is another prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inlay.base.contract import Base
from inlay.base.families import load_base
from inlay.base.sampling import initial_noise, sample
from inlay.data.settings import PriorSettings
from inlay.errors import ConfigError
from inlay.methods import Attachment
from inlay.metrics.intervals import of_mean
from inlay.randomness import derive, stream
from inlay.run.compare.gather import Run, gather
from inlay.run.compare.settings import method_labels
from inlay.run.config import RunConfig
from inlay.run.directory import load_run, read_config
from inlay.run.record import command_line, hardware, now, versions
from inlay.run.reporter import Reporter
from inlay.train.noise_path import noise_path

TIMESTEPS = (100, 300, 500, 700, 900)
"""In thousandths of the path."""
IDENTIFIER = "sks"
"""The identifier of most publications, which is taken out of a prompt where nothing else tells which word it is."""
AT_ONCE = 16
"""Noisy pictures that go through the denoiser together, under either prompt."""


@dataclass(frozen=True)
class Difference:
    """Mean absolute difference over channels, by noisy picture and place."""

    maps: NDArray[np.float32]
    """[pictures, noises, timesteps, h, w], on the grid of the latents."""
    timesteps: tuple[int, ...]

    @property
    def values(self) -> NDArray[np.float64]:
        """The mean over places, [pictures, noises, timesteps]."""
        return self.maps.astype(np.float64).mean((3, 4))


@torch.no_grad()
def noise_difference(
    model: Base,
    prompts: tuple[str, str],
    clean: Tensor,
    timesteps: Sequence[int],
    noises: int,
    seed: int = 0,
) -> Difference:
    """Return how a model's predicted noise under one prompt differs from that under another.

    Predictions of another kind than the noise are turned into the noise that they imply, so that models compare.

    Args:
        model: with whatever methods are attached to it.
        prompts: with the identifier, and without it.
        clean: latents [pictures, C, h, w] to noise.
        timesteps: at which.
        noises: draws of noise a picture; the same ones for every model.
        seed: of the noise.

    Raises:
        ConfigError: a timestep is not on the model's path.
    """
    path = noise_path(model.architecture)
    wrong = [step for step in timesteps if not 0 <= step < path.timesteps]
    if wrong or not timesteps:
        raise ConfigError(f"timesteps {wrong or 'none'}: must be from 0 to {path.timesteps - 1}")
    prediction: Any = model.prediction
    pictures = len(clean)
    cases = [(picture, draw, step) for picture in range(pictures) for draw in range(noises) for step in timesteps]
    maps = []
    with model.evaluating():
        states = model.encode_text(prompts)
        for first in range(0, len(cases), AT_ONCE):
            some = cases[first : first + AT_ONCE]
            noise = torch.stack(
                [torch.randn(clean.shape[1:], generator=stream(seed, "noise difference", p, n)) for p, n, _ in some]
            ).to(model.device)
            at = torch.tensor([step for _, _, step in some])
            noisy = path.add_noise(clean[[picture for picture, _, _ in some]].to(model.device), noise, at)
            outputs = [
                model.predict(noisy, at.to(model.device), states[[which]].expand(len(some), -1, -1)).float()
                for which in (0, 1)
            ]
            with_it, without = (path.to_epsilon(prediction, output, noisy, at) for output in outputs)
            maps.append((with_it - without).abs().mean(1).cpu())
    shape = (pictures, noises, len(timesteps), *clean.shape[-2:])
    return Difference(torch.cat(maps).numpy().reshape(shape), tuple(timesteps))


@dataclass(frozen=True)
class Measured:
    """What :func:`analyze_noise_difference` found: the record, and what the picture of it needs beside."""

    record: dict[str, Any]
    """JSON-ready."""
    pictures: NDArray[np.uint8]
    """Those that were noised, [pictures, H, W, 3]."""
    maps: dict[str, NDArray[np.float32]]
    """By name, the base first: of the first picture, mean over noises, [timesteps, h, w]."""


def analyze_noise_difference(
    directories: Sequence[Path],
    reporter: Reporter,
    prompt: str | None = None,
    class_prompt: str | None = None,
    pictures: int = 8,
    noises: int = 2,
    timesteps: Sequence[int] | None = None,
    seed: int = 0,
) -> Measured:
    """Measure finished runs of one base, and the base itself.

    Args:
        directories: run directories; the first one's class prompt is what the noised pictures are drawn from.
        reporter: told how it goes.
        prompt: with the identifier; by default each run's own `data.prompt`.
        class_prompt: without it; by default each run's `data.prior.prompt`, or its prompt without the new word, or
            without "sks".
        pictures: of the class, drawn by the base.
        noises: draws a picture.
        timesteps: by default five, evenly spread.
        seed: of the pictures and of the noise.

    Raises:
        ConfigError: a directory holds no finished tuning run, the runs are of several bases, or it is not known which
            word is the identifier.
    """
    started = now()
    runs = gather(directories)[0]
    _refuse(runs)
    configs = [read_config(run.directory) for run in runs]
    base = _placed(load_base(configs[0].base))
    total = noise_path(base.architecture).timesteps
    at = tuple(timesteps) if timesteps else tuple(thousandth * total // 1000 for thousandth in TIMESTEPS)
    found: dict[str, dict[str, Any]] = {}
    maps: dict[str, NDArray[np.float32]] = {}
    controls: dict[tuple[str, str], Difference] = {}
    shown = clean = None
    for run, config, label in zip(runs, configs, method_labels(runs), strict=True):
        assert isinstance(config, RunConfig)
        reporter.phase(f"measuring {run.name}")
        model, attachments = load_run(run.directory)
        asked = _prompts(run, config, attachments, prompt, class_prompt)
        if clean is None:
            reporter.phase(f"drawing {pictures} pictures of {asked[1]!r} with the base")
            shown, clean = _class_pictures(base, asked[1], pictures, seed, config)
        if asked not in controls:
            controls[asked] = noise_difference(base, asked, clean, at, noises, seed)
        control = controls[asked]
        tuned = noise_difference(_placed(model), asked, clean, at, noises, seed)
        found[run.name] = {
            "method": label,
            "prompts": list(asked),
            **summary(tuned.values),
            "base": summary(control.values),
            "gain": summary(tuned.values - control.values),
        }
        maps.setdefault("base", control.maps[0].mean(0))
        maps[run.name] = tuned.maps[0].mean(0)
    assert shown is not None
    record = {
        "kind": "noise-difference",
        "started": started,
        "ended": now(),
        "command": command_line(),
        "base": {"name": base.name, "hash": base.file_hash, "prediction": base.prediction},
        "pictures": pictures,
        "noises": noises,
        "timesteps": list(at),
        "seed": seed,
        "runs": found,
        "versions": versions(),
        "hardware": hardware(),
    }
    return Measured(record, shown, maps)


def summary(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return mean, interval over pictures, spread over noises, and the mean at each timestep.

    Args:
        values: [pictures, noises, timesteps].
    """
    found = of_mean(values.mean((1, 2)), np.arange(len(values)) % 20)
    interval = found.interval()
    spread = values.mean(2).std(1, ddof=1).mean() if values.shape[1] > 1 else None
    return {
        "mean": found.value,
        "interval": None if interval is None else [interval.low, interval.high],
        "spread_over_noises": None if spread is None else float(spread),
        "by_timestep": [float(value) for value in values.mean((0, 1))],
    }


def conclusion(record: dict[str, Any]) -> list[str]:
    """Return a sentence on whose identifier acts more than the base's, and whose does not."""
    more, same = [], []
    for name, run in record["runs"].items():
        interval = run["gain"]["interval"]
        (more if interval is not None and interval[0] > 0 else same).append(name)
    said = []
    if more:
        said.append(f"the identifier moves the prediction more than in the base: {', '.join(more)}")
    if same:
        said.append(f"no more than in the base, or too few pictures to tell: {', '.join(same)}")
    return said


def _refuse(runs: Sequence[Run]) -> None:
    unfinished = [f"{run.name} ({run.says})" for run in runs if not run.done]
    if unfinished:
        raise ConfigError(f"{'; '.join(unfinished)}: only a finished run has a model to measure")
    scratch = [run.name for run in runs if run.at("kind") == "pretrain"]
    if scratch:
        raise ConfigError(f"{', '.join(scratch)}: trained from scratch; there is no base without the identifier")
    bases = {run.at("base", "hash") for run in runs}
    if len(bases) > 1:
        raise ConfigError("the runs are tuned from different bases; their predictions do not compare")


def _prompts(
    run: Run, config: RunConfig, attachments: Sequence[Attachment], prompt: str | None, class_prompt: str | None
) -> tuple[str, str]:
    """Return the prompt with the identifier and that without."""
    own = prompt or config.data.prompt
    if not own:
        raise ConfigError(f"{run.name}: its pictures have captions of their own; say --prompt, with the identifier")
    prior: PriorSettings | None = config.data.prior
    if class_prompt is None and prior is not None:
        class_prompt = prior.prompt
    if class_prompt is None:
        words = {word.lower() for attachment in attachments for word in attachment.words} or {IDENTIFIER}
        class_prompt = " ".join(word for word in own.split() if word.lower() not in words)
    if class_prompt == own:
        raise ConfigError(f"{run.name}: which word of {own!r} is the identifier? Say --class-prompt, without it")
    return own, class_prompt


def _class_pictures(
    base: Base, prompt: str, count: int, seed: int, config: RunConfig
) -> tuple[NDArray[np.uint8], Tensor]:
    """Return pictures that the base draws of the class, and their latents."""
    side = config.data.resolution or base.architecture.resolution
    noise = initial_noise(base, [derive(seed, "class picture", number) for number in range(count)], (side, side))
    drawn = sample(base, [prompt] * count, noise, guidance=config.preview.guidance)
    pixels = drawn.permute(0, 3, 1, 2).float() / 127.5 - 1
    return drawn.numpy(), torch.cat([base.encode_images(part)[0] for part in pixels.split(4)]).cpu()


def _placed(model: Base) -> Base:
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
