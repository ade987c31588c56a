"""The study file: what is compared, on what, how often, and at which equal budget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from inlay.errors import ConfigError
from inlay.run.load import apply_overrides, read_run_file, validate
from inlay.settings import Settings

Level = str | int | float | bool | None
"""A level as it is called in tables: a value of a run file, or the name of several."""
Stated = dict[str, Any]
"""Settings of the run file, by dotted keys or in sections."""
STUDY_FILE = "study.yaml"
"""The resolved study file of a study directory."""


def flat(settings: Mapping[str, Any]) -> Stated:
    """Return settings of a run file by dotted keys; `method: lora` and empty sections stay as they are."""
    found: Stated = {}
    for key, value in settings.items():
        # A section with a name of its own kind (`method: {name: lora}`) replaces the whole section.
        if isinstance(value, dict) and value and "name" not in value:
            found |= {f"{key}.{inner}": setting for inner, setting in flat(value).items()}
        else:
            found[key] = value
    return found


_WRITTEN_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""`1e-4`, which YAML takes for a text."""


def _numbers(values: Any) -> Any:
    if not isinstance(values, list | tuple):
        return values
    return [float(v) if isinstance(v, str) and _WRITTEN_NUMBER.fullmatch(v) else v for v in values]


def _levels(value: Any) -> Any:
    return {"levels": value} if isinstance(value, list | tuple) else value


class Factor(Settings):
    """What a study varies. A list of values is short for `{levels: [...]}`."""

    key: str | None = None
    """The key of the run file that the levels are values of; by default the factor's own name."""
    levels: Annotated[tuple[Level, ...] | dict[str, Stated], BeforeValidator(_numbers)]
    """The values to compare; or names, each with the settings that it stands for, which may be several."""

    @field_validator("levels")
    @classmethod
    def _several(cls, levels: tuple[Level, ...] | dict[str, Stated]) -> Any:
        if not levels:
            raise ValueError("levels are empty; give at least one")
        if isinstance(levels, tuple) and len({(type(level), level) for level in levels}) < len(levels):
            raise ValueError(f"levels {list(levels)} name one twice")
        return levels

    @model_validator(mode="after")
    def _one_way(self) -> Factor:
        if self.key is not None and isinstance(self.levels, dict):
            raise ValueError("key has no effect where each level states its own settings; leave it out")
        return self

    @property
    def names(self) -> tuple[Level, ...]:
        """The levels as tables call them."""
        return tuple(self.levels)

    def settings(self, name: str, level: Level) -> Stated:
        """Return what a level sets.

        Args:
            name: the factor's.
            level: one of :attr:`names`.
        """
        if isinstance(self.levels, dict):
            return flat(self.levels[str(level)])
        return {self.key or name: level}


class ParameterBudget(Settings):
    """The same number of trained parameters in every cell, by solving for each method's size."""

    count: Annotated[int, Field(ge=1)]
    """Trained parameters."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Largest relative difference that counts as equal."""
    unmatched: Literal["leave out", "keep"] = "leave out"
    """What to do about cells that cannot have so many: a method without a size, or one whose sizes jump over it."""
    sizes: dict[str, str] = Field(default_factory=dict)
    """The setting to solve for by method, for instance `{lora: rank}`; by default `width`, `rank`, `tokens`, `length`
    or `vectors`, whichever the method has first."""


class Budget(Settings):
    """What every cell may spend. Of `steps`, `seconds` and `flops` one; `parameters` beside it or alone."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Time in the training loop. Results then depend on the machine and on what else it does."""
    flops: Annotated[float, Field(gt=0)] | None = None
    """Multiplications and additions of training; each cell gets as many whole steps as they pay for."""
    parameters: Annotated[
        ParameterBudget | None,
        BeforeValidator(lambda v: {"count": v} if isinstance(v, int) and not isinstance(v, bool) else v),
    ] = None
    """Trained parameters: a number, or a section."""

    @model_validator(mode="after")
    def _one_length(self) -> Budget:
        given = [name for name in ("steps", "seconds", "flops") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each say how long a cell trains; give one")
        if not given and self.parameters is None:
            raise ValueError("give one of steps, seconds and flops, or parameters")
        return self


class FullDesign(Settings):
    """Every combination of levels that the methods allow."""

    kind: Literal["full"] = "full"


class FractionalDesign(Settings):
    """A part of the combinations, chosen so that the effects asked for can still be told apart."""

    kind: Literal["fractional"] = "fractional"
    runs: Annotated[int, Field(ge=2)]
    """Combinations, before tasks and seeds. For factors of two levels without constraints, a power of two gives a
    regular design; anything else a D-optimal one."""
    interactions: bool = False
    """Whether effects of two factors together must be estimable, or only those of each."""
    seed: int = 0
    """Of the search."""


class RandomDesign(Settings):
    """Combinations drawn at random, each at most once."""

    kind: Literal["random"] = "random"
    runs: Annotated[int, Field(ge=1)]
    """Combinations, before tasks and seeds."""
    seed: int = 0
    """Of the draw."""


class Tuning(Settings):
    """An equal budget of runs for finding one setting, the learning rate as a rule, before anything is compared.

    Every combination of the factors in `by` tries the same levels. The best by a metric of validation data is written
    to the ledger, and only then do the cells of the study begin. Pictures of the test are not drawn meanwhile:
    `evaluate` is off, unless `run` sets it.
    """

    key: str = "train.learning_rate"
    """The setting to find."""
    levels: Annotated[tuple[int | float | str, ...], Field(min_length=2), BeforeValidator(_numbers)]
    """The values to try."""
    by: tuple[str, ...] = ()
    """Factors for whose levels it is found apart, `task` among them; others are at their first level meanwhile."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1000,)
    """Seeds of these runs; other ones than those of the study."""
    metric: str = "validation_loss"
    """What decides."""
    higher_is_better: bool = False
    """Whether a greater value is the better one."""
    run: Stated = Field(default_factory=dict)
    """Settings of the run file for these runs alone, for instance fewer steps or another reference."""


class Execution(Settings):
    """How cells are run. Nothing here changes a result but `cpus`, whose number can change rounding."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes on this machine; by default as many as its cores allow."""
    cpus: Annotated[int, Field(ge=1)] = 1
    """Cores a cell, and threads of its arithmetic."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs a cell; 0.5 lets two cells share one. By default one where there are any."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a cell that failed, or whose worker died, is tried again."""


_DESIGNS = FullDesign | FractionalDesign | RandomDesign


def _design(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Study(Settings):
    """A study: one run file, varied by tasks, factors and seeds."""

    title: str = ""
    """One line for reports."""
    run: Stated
    """What all cells have in common: the sections of a run file, or the path of one."""
    tasks: dict[str, Stated] = Field(default_factory=dict)
    """What to learn, a subject or a domain: names, each with the settings that it stands for."""
    factors: dict[str, Annotated[Factor, BeforeValidator(_levels)]] = Field(default_factory=dict)
    """What is compared."""
    leave_out: tuple[dict[str, Level | tuple[Level, ...]], ...] = ()
    """Combinations not to run: each a level, or a list of levels, by factor (or `task`). Combinations that the methods
    do not allow are left out by themselves."""
    seeds: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(lambda v: tuple(range(v)) if isinstance(v, int) and not isinstance(v, bool) and v > 0 else v),
    ] = None
    """Seeds, or how many; every cell is run with each of them."""
    budget: Budget | None = None
    """What every cell may spend; by default what `run` says."""
    design: Annotated[Annotated[_DESIGNS, Field(discriminator="kind")], BeforeValidator(_design)] = FullDesign()
    """Which combinations are run."""
    tuning: Tuning | None = None
    """A setting to find first, on validation data; null for none."""
    metrics: tuple[str, ...] = ()
    """What to compare the cells by, as records name it; by default everything they hold."""
    higher_is_better: dict[str, bool] = Field(default_factory=dict)
    """Which way a metric is good, where its name does not tell."""
    execution: Execution = Execution()
    """How cells are run."""

    @field_validator("run", mode="before")
    @classmethod
    def _from_file(cls, run: Any) -> Any:
        return read_run_file(run) if isinstance(run, str) else run

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
            raise ValueError(f"seeds {list(seeds)}: give different whole numbers, or how many")
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        mistakes = list(self._mistakes())
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def _mistakes(self) -> Iterator[str]:
        if "output" in self.run:
            yield "run.output: a study keeps its cells in its own directory; leave it out"
        stated = {"run": flat(self.run)}
        stated |= {f"tasks.{name}": flat(settings) for name, settings in self.tasks.items()}
        for name, factor in self.factors.items():
            for level in factor.names:
                stated[f"factors.{name}"] = factor.settings(name, level) | stated.get(f"factors.{name}", {})
        for place, settings in stated.items():
            keys = set(settings)
            if place != "run" and "seed" in keys:
                yield f"{place}: seeds are given as `seeds`, so that every combination gets the same ones"
            lengths = sorted(keys & {"train.steps", "train.epochs", "train.minutes"})
            timed = self.budget and (self.budget.steps or self.budget.seconds or self.budget.flops)
            if timed and lengths and place != "run":
                yield f"{place} sets {', '.join(lengths)} and budget sets the length of every cell; leave out one"
            if self.tuning is not None and self.tuning.key in keys and place != "run":
                yield f"{place} sets {self.tuning.key}, which tuning is to find; leave out one"
        for number, pattern in enumerate(self.leave_out):
            for name, wanted in pattern.items():
                known = (
                    tuple(self.tasks) if name == "task" else self.factors[name].names if name in self.factors else ()
                )
                if not known:
                    allowed = ", ".join([*self.factors, "task"])
                    yield f"leave_out.{number}: {name!r} is no factor; allowed: {allowed}"
                for level in wanted if isinstance(wanted, tuple) else (wanted,):
                    if known and level not in known:
                        yield f"leave_out.{number}.{name}: {level!r} is no level of it; allowed: {_list(known)}"
        if self.tuning is not None:
            unknown = sorted(set(self.tuning.by) - {*self.factors, *(["task"] if self.tasks else [])})
            if unknown:
                yield f"tuning.by: no factors are called {', '.join(unknown)}; allowed: {', '.join(self.factors)}"
            shared = sorted(set(self.tuning.seeds) & set(self.seeds or ()))
            if shared:
                yield f"tuning.seeds {shared} are seeds of the study too; a setting must be found on other ones"
        if "task" in self.factors or "seed" in self.factors:
            yield "factors: `task` and `seed` are columns of every table; call the factor otherwise"

    @property
    def higher(self) -> dict[str, bool]:
        """Which way each metric is good, as far as the file says."""
        own = {} if self.tuning is None else {self.tuning.metric: self.tuning.higher_is_better}
        return own | self.higher_is_better


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Return the study that a file, or a study directory, holds.

    Args:
        path: either.
        overrides: ``dotted.key=value``, later ones winning.

    Raises:
        ConfigError: it cannot be read, or is wrong; every mistake at once.
    """
    if path.is_dir():
        if not (path / STUDY_FILE).is_file():
            raise ConfigError(f"{path}: not a study directory; it has no {STUDY_FILE}")
        path = path / STUDY_FILE
    return validate(Study, apply_overrides(read_run_file(path), overrides), path)


def _list(values: tuple[Level, ...]) -> str:
    return ", ".join(str(value) for value in values)
