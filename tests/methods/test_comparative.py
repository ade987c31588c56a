"""The run files of the comparative study have the sizes that they state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.run.load_job import load_job

RECIPES = Path(__file__).parents[2] / "recipes" / "comparative"
COUNTED = {
    "full": 859_520_964,
    "adapter": 1_236_304,
    "lora-r4": 198_912,
    "lora-r5": 248_640,
    "prefix": 249_600,
    "bitfit": 174_720,
}


def test_there_is_a_recipe_of_every_row():
    assert {path.stem for path in RECIPES.iterdir()} == COUNTED.keys()


@pytest.mark.parametrize("name", COUNTED)
def test_a_recipe_trains_as_many_parameters_as_it_states(name: str):
    path = RECIPES / f"{name}.yaml"
    job = load_job(path)
    parts = read_architecture(job.base, locate(job.base, weights=False)).meta()
    [method] = job.methods
    assert sum(parameter.numel() for parameter in method.attach(parts).parameters().values()) == COUNTED[name]
    head = path.read_text(encoding="utf-8")
    assert re.search(rf"^# Parameters published: [\d.]+ M.*; counted: {COUNTED[name]:,}\b", head, re.MULTILINE)
    assert (job.train.steps, job.learning_rate, job.train.precision) == (10_000, 1e-5, "bf16")
