"""What keeps runs from being compared in this or that respect, in sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from inlay.run.compare.gather import Run


def notes(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each thing that readers of the comparison must know."""
    said = []
    bases = _groups(runs, lambda run: run.at("base", "hash"))
    if len(bases) > 1:
        said.append(
            f"Runs of {len(bases)} bases: "
            f"{_listed(bases, lambda run: run.setting('base', 'model'), lambda run: run.at('base', 'hash'))}. What "
            "differs between them is the base as well as the method."
        )
    data = _groups(runs, lambda run: run.at("data", "hash"))
    if len(data) > 1:
        said.append(
            f"Trained on {len(data)} sets of pictures: "
            f"{_listed(data, lambda run: run.setting('data', 'source'), lambda run: run.at('data', 'hash'))}. "
            "Losses of different pictures are not comparable."
        )
    sizes = _groups(runs, lambda run: run.at("data", "resolution"))
    if len(sizes) > 1:
        said.append(f"Trained at {len(sizes)} resolutions: {_listed(sizes, lambda run: run.at('data', 'resolution'))}.")
    machines = _groups(runs, _machine)
    if len(machines) > 1:
        said.append(
            f"Run on {len(machines)} machines or with different threads: {_listed(machines, _machine_words)}. Seconds "
            "and memory compare the machines as well as the methods."
        )
    said += [
        f"{run.name} went on from {', '.join(run.config['start_from'])}: its steps and seconds are those after."
        for run in runs
        if run.config.get("start_from")
    ]
    unfinished = [run for run in runs if not run.done]
    said += [f"{run.name}: {run.says}." for run in unfinished]
    settings = [_without_seed(run.config) for run in runs]
    if len(runs) > 1 and all(settings.count(own) == 1 for own in settings):
        said.append(
            "One run of each setting: another seed might change places. Intervals are over pictures, not over training "
            "runs; runs of several seeds tell which difference is real."
        )
    return said


def _groups(runs: Sequence[Run], key: Callable[[Run], Any]) -> list[list[Run]]:
    """Return the runs that agree in ``key`` together; runs without it are left out."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        value = key(run)
        if value is not None:
            found.setdefault(json.dumps(value, sort_keys=True), []).append(run)
    return list(found.values())


def _listed(
    groups: Sequence[Sequence[Run]], word: Callable[[Run], Any], apart: Callable[[Run], str] | None = None
) -> str:
    """Return each group's word and runs; groups of one word are told apart by the beginning of a hash."""
    words = [str(word(group[0])) for group in groups]
    if apart is not None and len(set(words)) < len(words):
        words = [f"{name} {apart(group[0])[:8]}" for name, group in zip(words, groups, strict=True)]
    return "; ".join(
        f"{name} ({', '.join(run.name for run in group)})" for name, group in zip(words, groups, strict=True)
    )


def _machine(run: Run) -> Any:
    hardware = run.at("hardware")
    keys = ("processor", "cores", "threads", "memory_bytes", "gpus")
    return {key: hardware.get(key) for key in keys} if hardware else None


def _machine_words(run: Run) -> str:
    hardware = run.at("hardware")
    gpus = hardware.get("gpus") or []
    return ", ".join(gpus) if gpus else f"{hardware.get('threads')} threads of {hardware.get('cores')} cores"


def _without_seed(config: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in config.items() if key not in ("seed", "output")}, sort_keys=True)
