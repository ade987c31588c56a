"""Writes docs/reference/run-file.md and study-file.md from the settings' own types, defaults and docstrings.

    python docs/generate.py

A test fails when a page is not what this prints.
"""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from inlay.base.settings import BaseSettings, PathSettings
from inlay.cli.methods import describe
from inlay.data.settings import DataSettings, MaskSettings, PriorSettings
from inlay.methods import METHODS
from inlay.objective.settings import Objective
from inlay.objective.timesteps import TimestepSampling
from inlay.objective.weighting import Weighting
from inlay.run.config import Conditioning, PretrainConfig, PreviewSettings, RunConfig
from inlay.run.denoisers import DENOISERS
from inlay.run.evaluation.settings import EvaluateSettings
from inlay.study.settings import (
    Budget,
    Execution,
    Factor,
    FractionalDesign,
    FullDesign,
    ParameterBudget,
    RandomDesign,
    Study,
    Tuning,
)
from inlay.train.optimizers import Optimizer
from inlay.train.schedules import LearningRateSchedule
from inlay.train.settings import Ema, PowerEma, TrainSettings

PAGE = Path(__file__).parent / "reference" / "run-file.md"
STUDY_PAGE = PAGE.with_name("study-file.md")
HEAD = """# The run file

Every setting with its type and default, as this version of inlay has them. A run file is YAML; a setting on the command
line is `section.key=value`, for instance `train.steps=500`. `base`, `data`, `method`, `conditioning` and `path` may be
given by one word: `base: tabletop` is `base: {model: tabletop}`. Unknown keys are refused.

This page is generated from the code by `docs/generate.py`.
"""


STUDY_HEAD = """# The study file

Every setting of a study file with its type and default; [Studies](../concepts/studies.md) explains them. On the command
line a setting is `section.key=value`, for instance `inlay study run study.yaml budget.steps=100 seeds=3`. Unknown keys
are refused.

This page is generated from the code by `docs/generate.py`.
"""


def section(title: str, model: type[BaseModel], level: int = 2) -> str:
    """Return one section's table."""
    described = describe(model)
    summary = described["description"].replace("\n", " ")
    lines = [f"{'#' * level} {title}", "", summary, ""]
    if described["settings"]:
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for setting in described["settings"]:
        default = "*must be given*" if setting["required"] else f"`{dumps(setting['default'])}`"
        cells = [f"`{setting['key']}`", setting["type"], default, setting["description"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def overview(title: str, model: type[BaseModel]) -> str:
    """Return what a run file's top level holds; the sections have tables of their own."""
    described = describe(model)
    lines = [f"## {title}", "", described["description"].replace("\n", " "), "", "| section | meaning |", "|---|---|"]
    for setting in described["settings"]:
        needed = " *Must be given.*" if setting["required"] else ""
        lines.append(f"| `{setting['key']}` | {setting['description']}{needed} |")
    return "\n".join(lines) + "\n"


def members(union: object) -> dict[str, type[BaseModel]]:
    """Return the members of a discriminated union by name."""
    return {model.model_fields["name"].default: model for model in get_args(get_args(union)[0])}


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, overview("A tuning run", RunConfig), overview("A run from scratch", PretrainConfig)]
    parts += [section("`base`", BaseSettings), section("`data`", DataSettings)]
    parts += [section("`data.mask`", MaskSettings, 3), section("`data.prior`", PriorSettings, 3)]
    parts += [section(f"`method`: {name}", model) for name, model in METHODS.items()]
    parts += [section("`objective`", Objective)]
    parts += [section(f"`objective.weighting`: {name}", model, 3) for name, model in members(Weighting).items()]
    parts += [section(f"`objective.timesteps`: {name}", model, 3) for name, model in members(TimestepSampling).items()]
    parts += [section("`train`", TrainSettings), section("`train.schedule`", LearningRateSchedule, 3)]
    parts += [section(f"`train.optimizer`: {name}", model, 3) for name, model in members(Optimizer).items()]
    parts += [section("`train.ema`: exponential", Ema, 3)]
    parts += [section("`train.ema`: power", PowerEma, 3)]
    parts += [section("`preview`", PreviewSettings), section("`evaluate`", EvaluateSettings)]
    parts += [section(f"`denoiser`: {name}", model) for name, model in DENOISERS.items()]
    parts += [section("`conditioning`", Conditioning), section("`path`", PathSettings)]
    return "\n".join(parts)


def study_page() -> str:
    """Return the page of the study file."""
    parts = [STUDY_HEAD, section("A study", Study), section("A factor", Factor), section("`budget`", Budget)]
    parts += [section("`budget.parameters`", ParameterBudget, 3)]
    parts += [
        section(f"`design`: {model.model_fields['kind'].default}", model)
        for model in (FullDesign, FractionalDesign, RandomDesign)
    ]
    parts += [section("`tuning`", Tuning), section("`execution`", Execution)]
    return "\n".join(parts)


PAGES = {PAGE: page, STUDY_PAGE: study_page}

if __name__ == "__main__":
    for path, write in PAGES.items():
        path.write_text(write(), encoding="utf-8")
