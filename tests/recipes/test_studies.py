"""The committed study files: their cells are those of the publications, and they fit their bases."""

from pathlib import Path

import pytest

from inlay.methods.adapter import PAIRS
from inlay.run.load_job import load_job
from inlay.study.cells import expand
from inlay.study.outline import Outlines
from inlay.study.settings import read_study

ROOT = Path(__file__).parents[2]
POSITIONS = ["studies/positions/finetuning.yaml", "recipes/studies/positions-flowers102.yaml"]
SPACES = ["studies/positions/space.yaml", "recipes/studies/positions-dreambooth.yaml"]
METHODS = [
    "studies/methods/steps.yaml",
    "studies/methods/seconds.yaml",
    "recipes/studies/methods-food101.yaml",
    "recipes/studies/methods-flowers102.yaml",
]


def pairs(cells):
    return {(cell.factors["input"], cell.factors["output"]) for cell in cells}


@pytest.mark.parametrize("name", POSITIONS)
def test_the_twenty_pairs_with_three_seeds(name):
    cells = expand(read_study(ROOT / name)).main
    assert len(cells) == 20 * 3
    assert pairs(cells) == set(PAIRS)


@pytest.mark.parametrize("name", SPACES)
def test_the_design_space_of_320_cells_at_equal_parameters(name):
    study = read_study(ROOT / name)
    expansion = expand(study)
    assert len(expansion.main) == 320
    assert expansion.combinations == 10 * 7 * 16
    assert pairs(expansion.main) == set(PAIRS)
    outlines = Outlines()
    budget = study.budget.parameters
    counts = {outlines.check(cell.config).parameters for cell in expansion.main}
    assert all(abs(count / budget.count - 1) <= budget.tolerance for count in counts)


def test_the_pairs_on_three_subjects():
    cells = expand(read_study(ROOT / "studies/positions/subjects.yaml")).main
    assert len(cells) == 20 * 3 * 3
    assert {cell.task for cell in cells} == {"pip", "rolo", "momo"}


def test_full_dreambooth_is_tuned_on_a_subject_that_the_comparison_does_not_use():
    expansion = expand(read_study(ROOT / "studies/positions/dreambooth.yaml"))
    assert (len(expansion.tuning), len(expansion.main)) == (4 * 6 * 2, 4 * 3 * 3)
    tuned, compared = ({cell.config.data.source for cell in cells} for cells in (expansion.tuning, expansion.main))
    assert not tuned & compared


@pytest.mark.parametrize("name", METHODS)
def test_seven_methods_with_as_many_tuning_runs_each(name):
    study = read_study(ROOT / name)
    expansion = expand(study)
    assert len(expansion.main) == 7 * 3
    assert len(expansion.tuning) == 7 * len(study.tuning.levels)
    assert all(cell.config.evaluate is None and cell.config.data.validation for cell in expansion.tuning)
    assert all(cell.config.evaluate is not None for cell in expansion.main)


def test_targets_and_weightings_of_the_embedded_base_are_compared_in_its_recipe_s_form():
    cells = expand(read_study(ROOT / "studies/weighting/study.yaml")).main
    compared = {(cell.config.objective.prediction, cell.config.objective.weighting.name) for cell in cells}
    assert compared == {(target, name) for target in ("epsilon", "v_prediction") for name in ("plain", "min_snr")}
    assert len(cells) == 4 * 3
    recipe = load_job(ROOT / "recipes/tabletop/denoiser.yaml", [])
    for cell in cells:
        assert cell.config.data.mask == recipe.data.mask
        assert cell.config.objective.timesteps == recipe.objective.timesteps
        assert cell.config.train.learning_rate == recipe.train.learning_rate
