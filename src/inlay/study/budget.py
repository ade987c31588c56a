"""An equal budget: steps, seconds or FLOPs for every cell, and sizes at which methods train as many parameters."""

from __future__ import annotations

from typing import Any

from inlay.errors import ConfigError, TargetError
from inlay.methods import Method
from inlay.run.config import JobConfig, PretrainConfig, RunConfig
from inlay.run.load import validate, with_settings
from inlay.study.outline import Outlines
from inlay.study.settings import Budget, ParameterBudget

SIZES = ("width", "rank", "tokens", "length", "vectors", "n_frequency")
"""Settings that decide how large a method is, the first of which that it has is solved for."""
LARGEST = 2**20
"""Where the search for a size ends."""


class Solver:
    """Turns a study's budget into settings of each cell."""

    def __init__(self, budget: Budget | None, outlines: Outlines | None = None):
        """Work for one study.

        Args:
            budget: its budget; None leaves run files as they are.
            outlines: what is known of its cells.
        """
        self.budget = budget
        self.outlines = outlines or Outlines()

    def apply(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return a cell's run file with the budget's settings.

        Raises:
            ConfigError: it cannot be met.
            TargetError: a method addresses what the base does not have.
        """
        budget = self.budget
        if budget is None:
            return data
        unlimited = {"train.epochs": None, "train.minutes": None, "train.steps": None}
        if budget.steps is not None:
            data = with_settings(data, {**unlimited, "train.steps": budget.steps}, "budget.steps")
        if budget.seconds is not None:
            data = with_settings(data, {**unlimited, "train.minutes": budget.seconds / 60}, "budget.seconds")
        if budget.parameters is not None:
            data = self._with_size(data, budget.parameters)
        if budget.flops is not None:
            one = with_settings(data, {**unlimited, "train.steps": 1}, "budget.flops")
            work = self.outlines.plan(_config(one)).work
            steps = int(budget.flops // (work.forward_step_flops + work.backward_step_flops))
            if steps < 1:
                raise ConfigError(f"budget.flops={budget.flops:g} does not pay for one step of this cell")
            data = with_settings(one, {"train.steps": steps}, "budget.flops")
        return data

    def check(self, config: JobConfig) -> None:
        """Hold a cell's settings against its base, without weights.

        Raises:
            ConfigError: objective or picture size do not fit the base.
            TargetError: a method addresses what the base does not have.
        """
        self.outlines.check(config)

    def _with_size(self, data: dict[str, Any], wanted: ParameterBudget) -> dict[str, Any]:
        config = _config(data)
        method = config.methods[0]
        key = wanted.sizes.get(method.name) or next((key for key in SIZES if key in type(method).model_fields), None)
        if key is None:
            found = self._count(config, method)
            if found is None:
                raise TargetError(f"{method.name} cannot be attached to {config.base.model}")
            what = f"{method.name} trains {found:,} parameters and has no size to change"
        else:
            if key not in type(method).model_fields:
                raise ConfigError(f"budget.parameters.sizes.{method.name}={key}: the method has no such setting")
            size, found = self._solve(config, method, key, wanted.count)
            data = with_settings(data, {f"method.{key}": size}, "budget.parameters")
            what = f"{method.name} trains {found:,} parameters at {key}={size}, the nearest it can have"
        if abs(found / wanted.count - 1) > wanted.tolerance and wanted.unmatched == "leave out":
            raise ConfigError(
                f"{what}, which is not within {wanted.tolerance:.3g} of budget.parameters.count={wanted.count:,}"
            )
        return data

    def _solve(self, config: JobConfig, method: Method, key: str, wanted: int) -> tuple[int, int]:
        """Return the size with the count of parameters nearest to ``wanted``, and that count."""
        one, two = self._count(config, method, key, 1), self._count(config, method, key, 2)
        if one is None:
            self.outlines.outline(config, config.methods)  # raises with the method's own reason
            raise TargetError(f"{method.name} cannot have {key}=1 on {config.base.model}")
        counts = {1: one} if two is None else {1: one, 2: two}
        if two is not None and two > one:  # nearly every method's parameters are linear in its size
            guess = 1 + round((wanted - one) / (two - one))
            near = {size: self._count(config, method, key, size) for size in (guess - 1, guess, guess + 1) if size > 2}
            counts |= {size: found for size, found in near.items() if found is not None}
            if all(found == one + (size - 1) * (two - one) for size, found in near.items()):
                return _nearest(counts, wanted)
        low, high = 1, 2
        while (found := self._count(config, method, key, high)) is not None and found < wanted and high < LARGEST:
            counts[high] = found
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            found = self._count(config, method, key, middle)
            if found is not None:
                counts[middle] = found
            low, high = (middle, high) if found is not None and found < wanted else (low, middle)
        found = self._count(config, method, key, high)
        return _nearest(counts if found is None else {**counts, high: found}, wanted)

    def _count(self, config: JobConfig, method: Method, key: str | None = None, size: int = 0) -> int | None:
        """Return the trained parameters at a size, None where the method cannot have it."""
        if key is not None:
            settings = {name: getattr(method, name) for name in method.model_fields_set if name != "budget"}
            try:
                method = type(method).model_validate({**settings, key: size})
            except ValueError:
                return None
        try:
            return self.outlines.outline(config, (method, *config.methods[1:])).parameters
        except TargetError:
            return None


def _nearest(counts: dict[int, int], wanted: int) -> tuple[int, int]:
    return min(counts.items(), key=lambda item: (abs(item[1] - wanted), item[0]))


def _config(data: dict[str, Any]) -> JobConfig:
    kind: type[JobConfig] = PretrainConfig if "denoiser" in data else RunConfig
    return validate(kind, data, "configuration")
