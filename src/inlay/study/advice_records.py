"""Records to advise by: those that ship with inlay, or those of a study directory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inlay.errors import ConfigError
from inlay.study.advice import Candidate, Records
from inlay.study.report.facts import higher_is_better, metrics_of, read_facts
from inlay.study.report.settings_table import COSTS
from inlay.study.report.words import plural, show
from inlay.study.statistics.moderation import moderate
from inlay.study.statistics.sample import has
from inlay.study.table import Row, load_table

SHIPPED = Path(__file__).with_name("advice.json")
"""Made by recipes/methods/advice.py."""
ECONOMIES: tuple[tuple[str, Callable[[Mapping[str, Any]], dict[str, Any]]], ...] = (
    ("bf16", lambda train: {"precision": "bf16"}),
    ("gradient checkpointing", lambda train: {"gradient_checkpointing": True}),
    ("a picture at a time", lambda train: {"accumulate": train["batch_size"]}),
    ("frozen weights of 8 bits", lambda train: {"quantize": "int8"}),
)
"""Ways to need less memory that change nothing of what is learnt but by rounding; those that cost least first."""


def shipped(task: str) -> Records:
    """Return the records that ship with inlay.

    Raises:
        ConfigError: there is no such task among them.
    """
    data = json.loads(SHIPPED.read_text(encoding="utf-8"))
    if task not in data["tasks"]:
        raise ConfigError(f"--task {task}: allowed: {', '.join(data['tasks'])}")
    found = data["tasks"][task]
    candidates = []
    for one in found["settings"]:
        train = {"steps": data["steps"], "batch_size": data["batch_size"], "learning_rate": one["learning_rate"]}
        settings = {"base": data["base"], "data": found["data"], "method": one["method"], "train": train}
        scatter = found["scatter"]
        candidates.append(
            Candidate(one["name"], one["quality"], 1, one["half_width"], one["costs"], settings, scatter=scatter)
        )
    return Records(data["covers"], task, data["metric"], True, tuple(candidates))


def of_study(directory: Path, task: str | None, metric: str | None) -> Records:
    """Return the records of a study directory.

    Args:
        directory: with results.
        task: one of its tasks; may be left out where there is one.
        metric: what to judge by; by default what the study is judged by.

    Raises:
        ConfigError: it has no results, or no such task or metric.
    """
    from inlay.study.cells import expand
    from inlay.study.directory import choices
    from inlay.study.settings import read_study

    rows, facts = load_table(directory), read_facts(directory)
    names = metrics_of(rows, facts, metric)
    if not names:
        raise ConfigError(f"{directory}: no cell has a result yet")
    tasks = list(dict.fromkeys(row.task for row in rows))
    if task is None and len(tasks) > 1:
        raise ConfigError(f"--task must be given; {directory} has {', '.join(map(str, tasks))}")
    wanted = tasks[0] if task is None else task
    if wanted not in tasks:
        allowed = ", ".join(map(str, tasks)) if tasks != [None] else "none: the study has one task without a name"
        raise ConfigError(f"--task {task}: allowed: {allowed}")
    configs = {cell.id: cell.config for cell in expand(read_study(directory), choices(directory)).main}
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.task == wanted and has(row, names[0]):
            groups.setdefault(tuple(row.factors.values()), []).append(row)
    if not groups:
        raise ConfigError(f"{directory}: no cell of task {wanted} has a value of {names[0]}")
    values = [[float(row.metrics[names[0]]) for row in group] for group in groups.values()]  # type: ignore[arg-type]
    scatters = moderate(values)
    candidates = []
    for place, (levels, group) in enumerate(groups.items()):
        spent = {name: _mean([row.costs.get(name) for row in group]) for name in COSTS}
        settings = configs[group[0].cell].model_dump(mode="json", exclude={"output", "seed"})
        name = " / ".join(show(level) for level in levels) or "the only setting"
        one = Candidate(name, float(np.mean(values[place])), len(group), None, spent, settings)
        if scatters is not None:
            one = replace(one, scatter=math.sqrt(scatters[0][place]), freedom=scatters[1][place])
        candidates.append(one)
    covers = (
        f"From {plural(sum(one.runs for one in candidates), 'run')} of {facts.title or directory}"
        + (f", task {wanted}" if wanted is not None else "")
        + ". Intervals are of a setting's mean on this task and noise; costs are those of the machine that ran."
    )
    higher = higher_is_better(names[0], facts) is not False
    return Records(covers, str(wanted), names[0], higher, tuple(candidates))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def for_base(records: Records, base: str) -> Records:
    """Return the records for another base: each method once, with the learning rate that is its own default.

    Which method is best is carried over from the base that was measured, which may be wrong. What it costs is not:
    :func:`planned_on` finds that out.

    Raises:
        ConfigError: there is no such base.
    """
    from inlay.base.families import read_base
    from inlay.base.locate import locate
    from inlay.base.settings import BaseSettings

    named = BaseSettings(model=base)
    read_base(named, locate(named, weights=False), None)
    best: dict[str, Candidate] = {}
    for one in records.candidates:
        key = json.dumps(one.settings["method"], sort_keys=True)
        if key not in best or (one.quality > best[key].quality) == records.higher:
            best[key] = one
    found = []
    for one in best.values():
        train = {name: value for name, value in one.settings["train"].items() if name != "learning_rate"}
        found.append(replace(one, settings={**one.settings, "base": base, "train": train}))
    covers = (
        f"{records.covers} Memory and files are planned for {base}; that methods rank alike there is an assumption, "
        "and the expected quality is that on the base that was measured."
    )
    return replace(records, covers=covers, candidates=tuple(found))


def planned_on(memory: float | None, told: Callable[[str], object]) -> Callable[[Candidate], Candidate | None]:
    """Return what plans a setting: memory and file by `inlay plan`, no time; None for what the base has no place for.

    Args:
        memory: bytes that training may take. What needs more gets as many of `ECONOMIES` as it takes, in order.
        told: called with a setting's name before it is planned, which takes seconds for a large base.
    """
    from inlay.errors import InlayError

    def planned(one: Candidate) -> Candidate | None:
        told(one.name)
        try:
            return _planned(one, memory)
        except InlayError:
            return None

    return planned


def _planned(one: Candidate, memory: float | None) -> Candidate:
    from inlay.run.config import RunConfig
    from inlay.run.load import validate
    from inlay.run.plan import make_plan

    settings = dict(one.settings)
    plan = make_plan(validate(RunConfig, settings))
    used: list[str] = []
    for words, economy in ECONOMIES:
        if memory is None or plan.memory.peak_bytes <= memory:
            break
        smaller = {**settings, "train": {**settings["train"], **economy(settings["train"])}}
        try:
            config = validate(RunConfig, smaller)
        except ConfigError:  # whole models are not trained in 8 bits
            continue
        settings, plan = smaller, make_plan(config)
        used.append(words)
    costs = {
        "peak_bytes": float(plan.memory.peak_bytes),
        "result_bytes": float(plan.disk.result_bytes),
        "trainable_parameters": float(plan.trainable_parameters),
    }
    return replace(one, costs=costs, settings=settings, economies=tuple(used))
