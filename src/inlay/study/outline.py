"""What cells train and cost, found out on the meta device; each thing once, however many cells share it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inlay.run.config import JobConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from inlay.base.contract import BaseArchitecture
    from inlay.methods import Method
    from inlay.run.plan import Plan

SHAPELESS = frozenset({"activation", "alpha", "dropout", "scale"})
"""Settings of methods that change what parameters do, and neither their number nor their shapes."""
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of the trained parameters of each method."""


@dataclass(frozen=True)
class Outline:
    """What a configuration trains."""

    parameters: int
    shapes: Shapes


class Outlines:
    """Attaches methods to bases without weights, and plans one configuration of those that cost the same."""

    def __init__(self):
        """Know nothing yet."""
        self._bases: dict[str, tuple[BaseArchitecture, dict[str, nn.Module]]] = {}
        self._outlines: dict[str, Outline] = {}
        self._checked: set[str] = set()
        self._plans: dict[str, Plan] = {}

    def check(self, config: JobConfig) -> Outline:
        """Hold objective and picture size against the base, attach the methods, and return what they train.

        Raises:
            ConfigError: the base is not found, or objective or resolution do not fit it.
            TargetError: a method addresses what the base does not have.
        """
        from inlay.run.check import check_objective, check_sizes

        architecture, _ = self._base(config)
        key = _text(
            {"base": config.base, "scratch": repr(config.scratch), "objective": config.objective, "data": config.data}
        )
        if key not in self._checked:
            check_sizes(config, architecture)
            check_objective(config, architecture)
            self._checked.add(key)
        return self.outline(config, config.methods)

    def outline(self, config: JobConfig, methods: Sequence[Method]) -> Outline:
        """Return what some methods train on a configuration's base.

        Raises:
            TargetError: a method addresses what the base does not have.
        """
        _, parts = self._base(config)
        shapes = [method.model_dump(mode="json", exclude=set(SHAPELESS)) for method in methods]
        key = _text({"base": config.base, "scratch": repr(config.scratch), "methods": shapes})
        if key not in self._outlines:
            attachments = []
            try:
                for method in methods:
                    attachments.append(method.attach(parts))
                parameters = [
                    (f"{index}.{name}", tuple(parameter.shape))
                    for index, attachment in enumerate(attachments)
                    for name, parameter in attachment.parameters().items()
                ]
                count = sum(p.numel() for attachment in attachments for p in attachment.parameters().values())
                self._outlines[key] = Outline(count, tuple(parameters))
            finally:
                for attachment in reversed(attachments):
                    attachment.detach()
        return self._outlines[key]

    def group(self, config: JobConfig) -> str:
        """Return a text that configurations share whose runs cost the same.

        Methods of one name whose parameters have the same names and shapes compute the same apart from single additions
        and activation functions; learning rates and seeds cost nothing.
        """
        return self._group(config, frozenset({"learning_rate"}), frozenset())

    def plan(self, config: JobConfig) -> Plan:
        """Return the plan of a configuration, or of another one whose steps and previews cost the same.

        How long it trains and what is evaluated may differ from the configuration's.

        Raises:
            InlayError: see :func:`inlay.run.plan.make_plan`.
        """
        from inlay.run.plan import make_plan

        group = self._group(config, frozenset({"learning_rate", "steps", "epochs", "minutes"}), frozenset({"evaluate"}))
        if group not in self._plans:
            self._plans[group] = make_plan(config)
        return self._plans[group]

    def _group(self, config: JobConfig, training: frozenset[str], others: frozenset[str]) -> str:
        without = {"method", "stack", "seed", "output", *others}
        shared = config.model_dump(mode="json", exclude=without)
        shared["train"] = {key: value for key, value in shared["train"].items() if key not in training}
        names = [method.name for method in config.methods]
        return _text({"run": shared, "methods": names, "shapes": self.outline(config, config.methods).shapes})

    def _base(self, config: JobConfig) -> tuple[BaseArchitecture, dict[str, nn.Module]]:
        from inlay.base.families import read_base
        from inlay.base.locate import locate

        key = _text({"base": config.base, "scratch": repr(config.scratch)})
        if key not in self._bases:
            architecture = read_base(config.base, locate(config.base, weights=False), config.scratch)
            self._bases[key] = architecture, architecture.meta()
        return self._bases[key]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=lambda model: model.model_dump(mode="json"))
