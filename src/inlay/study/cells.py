"""From a study file to its cells: every combination of levels, tasks and seeds that the methods allow."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inlay.errors import ConfigError, InlayError
from inlay.run.config import JobConfig, PretrainConfig, RunConfig
from inlay.run.evaluation.table import LOSSES, METRICS, SYMPTOMS
from inlay.run.load import validate, with_settings
from inlay.study.budget import Solver
from inlay.study.design import choose
from inlay.study.settings import Level, Stated, Study, flat

SLUG = 90
"""Letters of a cell's id before its hash."""
ASKED = "leave_out says so"
Stage = Literal["tuning", "main"]
Point = dict[str, Level]
"""One combination of levels, by factor."""


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    id: str
    """Name of its directory: readable, and with the hash of all that it states."""
    stage: Stage
    factors: Point
    task: str | None
    seed: int | None
    tuned: Level
    """The level of the tuned setting; None where nothing is tuned, or it is not found yet."""
    group: str | None
    """For which combination a setting is tuned; None without."""
    config: JobConfig

    def to_json(self) -> dict[str, Any]:
        """Return what the design file keeps of it."""
        names = ("id", "stage", "factors", "task", "seed", "tuned", "group")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class LeftOut:
    """Combinations that are not run, for one reason."""

    reason: str
    count: int
    """Combinations with tasks, before seeds."""
    example: Mapping[str, Level]


@dataclass(frozen=True)
class Expansion:
    """All cells of a study, and what is left out."""

    tuning: tuple[Cell, ...]
    main: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]
    combinations: int
    """Combinations of levels, of which some are left out."""
    design: str
    """The design in one sentence."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Both stages."""
        return (*self.tuning, *self.main)


def expand(study: Study, choices: Mapping[str, Level] | None = None) -> Expansion:
    """Return the cells of a study.

    Args:
        study: the study file.
        choices: of the tuned setting, by group, as far as they are known.

    Raises:
        ConfigError: nothing is left to run; or a level is in no cell, and why.
    """
    return _Expander(study, choices or {}).expand()


class _Expander:
    """Builds each configuration once, and sorts out what the methods refuse."""

    def __init__(self, study: Study, choices: Mapping[str, Level]):
        self.study = study
        self.choices = choices
        self.solver = Solver(study.budget)
        self._refused: dict[str, tuple[int, Point]] = {}
        self._levels_refused: dict[tuple[str, Level], str] = {}
        self._in_all: list[str] | None = None
        """Mistakes that are in each combination which is wrong; None before the first."""

    def expand(self) -> Expansion:
        study = self.study
        names = [factor.names for factor in study.factors.values()]
        points = [dict(zip(study.factors, levels, strict=True)) for levels in itertools.product(*names)]
        tasks: tuple[str | None, ...] = tuple(study.tasks) or (None,)
        allowed: dict[int, list[str | None]] = {}
        built: dict[str, tuple[str | None, Point]] = {}
        for number, point in enumerate(points):
            for task in tasks:
                if self._possible(point, task, built):
                    allowed.setdefault(number, []).append(task)
        self._check_levels([points[number] for number in allowed], {task for ts in allowed.values() for task in ts})
        kept, sentence = choose(study.design, [points[n] for n in allowed], study.factors)
        combinations = [(points[number], allowed[number]) for number in (list(allowed)[index] for index in kept)]
        main = [
            self._main_cell(point, task, seed)
            for seed in study.seeds or (None,)
            for point, possible in combinations
            for task in possible
        ]
        _check_metrics(study.metrics, main)
        return Expansion(
            tuning=tuple(self._tuning_cells(main)),
            main=tuple(main),
            left_out=tuple(LeftOut(reason, count, where) for reason, (count, where) in self._refused.items()),
            combinations=len(points) * len(tasks),
            design=sentence,
        )

    def stated(self, point: Point, task: str | None) -> dict[str, Any]:
        """Return the run file of a combination, before seed, budget and tuning."""
        settings = [
            (f"factors.{name}", self.study.factors[name].settings(name, level)) for name, level in point.items()
        ]
        pairs = [(source, key, value) for source, stated in settings for key, value in stated.items()]
        # A section before what is in it, so that `method: lora` does not undo `method.rank: 4`.
        pairs.sort(key=lambda pair: pair[1].count("."))
        data = self.study.run
        if task is not None:
            data = with_settings(data, flat(self.study.tasks[task]), f"tasks.{task}")
        for source, key, value in pairs:
            data = with_settings(data, {key: value}, source)
        return data

    def _possible(self, point: Point, task: str | None, built: dict[str, tuple[str | None, Point]]) -> bool:
        where = point if task is None else {**point, "task": task}
        if any(_matches(pattern, where) for pattern in self.study.leave_out):
            return self._refuse(ASKED, where)
        try:
            config = _validated(self._finished(self.stated(point, task), None))
            self.solver.check(config)
        except InlayError as error:
            found = error.mistakes if self._in_all is None else self._in_all
            self._in_all = [mistake for mistake in found if mistake in error.mistakes]
            return self._refuse(str(error).removeprefix("configuration: "), where)
        same = built.setdefault(config.content_hash(), (task, point))
        if same != (task, point):
            names = ", ".join(f"{name}={level}" for name, level in same[1].items())
            return self._refuse("another combination comes to the same run", where, f"such as {names}")
        return True

    def _refuse(self, reason: str, where: Point, detail: str = "") -> bool:
        count, first = self._refused.get(reason, (0, where))
        self._refused[reason] = (count + 1, first)
        for item in where.items():
            # Of the reasons for which a level is nowhere, one of the budget's is the one that the user can mend.
            before = self._levels_refused.get(item)
            if before is None or ("budget." not in before and reason != ASKED):
                self._levels_refused[item] = f"{reason} {detail}".strip()
        return False

    def _check_levels(self, allowed: Sequence[Point], tasks: set[str | None]) -> None:
        """Refuse a level that is in no cell: a mistake, and no constraint of the methods."""
        lost = [
            (name, level)
            for name, factor in self.study.factors.items()
            for level in factor.names
            if not any(point[name] == level for point in allowed)
        ]
        lost += [("task", task) for task in self.study.tasks if task not in tasks]
        if not allowed or lost:
            said = [f"{name}={level}: {self._levels_refused.get((name, level), '?')}" for name, level in lost]
            head = "levels that are in no cell"
            if not allowed:
                head = "no combination can be run"
                # A mistake that is in every combination, as one of the section `run` is, is the one to be mended.
                said = self._in_all or said
            raise ConfigError("\n  ".join([f"{head}:", *dict.fromkeys(said or self._refused)]))

    def _finished(self, data: dict[str, Any], seed: int | None) -> dict[str, Any]:
        """Add what is the same everywhere: no logging beside the record, the seed and the budget."""
        settings: Stated = {} if "trackers" in (data.get("train") or {}) else {"train.trackers": []}
        if seed is not None:
            settings["seed"] = seed
        return self.solver.apply(with_settings(data, settings, "study"))

    def _main_cell(self, point: Point, task: str | None, seed: int | None) -> Cell:
        tuning, group, tuned = self.study.tuning, None, None
        data = self.stated(point, task)
        if tuning is not None:
            group = self._group(point, task)
            tuned = self.choices.get(group)
            level = tuning.levels[0] if tuned is None else tuned
            data = with_settings(data, {tuning.key: level}, "tuning")
        data = self._finished(data, seed)
        settled = "" if tuning is None or tuned is not None else "not tuned yet"
        return Cell(
            _identifier([task, *point.values()], seed, {"run": data, "tuning": settled} if settled else {"run": data}),
            "main",
            point,
            task,
            seed,
            tuned,
            group,
            _validated(data),
        )

    def _group(self, point: Point, task: str | None) -> str:
        assert self.study.tuning is not None
        by = self.study.tuning.by
        own: Point = {name: point[name] for name in self.study.factors if name in by}
        return json.dumps({"task": task, **own} if "task" in by else own, sort_keys=True)

    def _tuning_cells(self, main: Sequence[Cell]) -> Iterator[Cell]:
        tuning = self.study.tuning
        if tuning is None:
            return
        first: dict[str, Cell] = {}
        for cell in main:  # the first combination stands for its group: task and other factors at their first level
            assert cell.group is not None
            first.setdefault(cell.group, cell)
        for seed in tuning.seeds:
            for group, cell in first.items():
                for level in tuning.levels:
                    data = with_settings(self.stated(cell.factors, cell.task), {tuning.key: level}, "tuning")
                    data = self._finished(data, seed)
                    data = {**data, "evaluate": None} if "evaluate" in data else data  # the test is not touched
                    data = with_settings(data, flat(tuning.run), "tuning.run")
                    config = _validated(data)
                    if tuning.metric == "validation_loss" and not config.data.validation:
                        raise ConfigError(
                            "tuning.metric=validation_loss: no pictures are held out to measure it on; set "
                            "data.validation in `run` or in tuning.run"
                        )
                    if not _measures(config, tuning.metric):
                        raise ConfigError(
                            f"tuning.metric={tuning.metric}: the runs that tune do not measure it, for they do not "
                            "touch the test; set tuning.run.evaluate, on other data, or take validation_loss"
                        )
                    names = ["tuning", *({**cell.factors, "task": cell.task}[name] for name in tuning.by), level]
                    identifier = _identifier(names, seed, {"run": data})
                    yield Cell(identifier, "tuning", cell.factors, cell.task, seed, level, group, config)


def _check_metrics(metrics: Sequence[str], cells: Sequence[Cell]) -> None:
    def measured(metric: str) -> bool:
        return any(_measures(cell.config, metric) for cell in cells)

    for metric in metrics:
        if not measured(metric):
            there = ", ".join(filter(measured, (*LOSSES, *METRICS, *SYMPTOMS)))
            raise ConfigError(f"metrics: no cell measures {metric}; they measure {there}; run.evaluate asks for more")


def _measures(config: JobConfig, metric: str) -> bool:
    """Return whether a run asks for a figure that its record then holds."""
    if metric == "smoothed_loss":
        return True
    if metric == "validation_loss":
        return bool(config.data.validation)
    return config.evaluate is not None and config.evaluate.measures(metric)


def _validated(data: dict[str, Any]) -> JobConfig:
    kind: type[JobConfig] = PretrainConfig if "denoiser" in data else RunConfig
    return validate(kind, data, "configuration")


def _matches(pattern: Mapping[str, Any], where: Mapping[str, Level]) -> bool:
    return all(
        where.get(name) in (wanted if isinstance(wanted, tuple) else (wanted,)) for name, wanted in pattern.items()
    )


def _identifier(names: Sequence[Level], seed: int | None, stated: dict[str, Any]) -> str:
    """Return a cell's id: what it states decides it, so a study that grows keeps the cells that it has."""
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    words = [str(name) for name in names if name is not None] + ([f"s{seed}"] if seed is not None else [])
    slug = re.sub(r"[^A-Za-z0-9.+_-]+", "-", "_".join(words)).strip("-.")[:SLUG]
    return f"{slug}_{digest}" if slug else digest
