from typing import get_args

import pytest

from inlay.errors import ConfigError
from inlay.methods.adapter import Output
from inlay.run.load import validate
from inlay.study.cells import expand
from inlay.study.settings import Study
from tests.study.studies import make, stated


def test_cells_are_what_the_methods_allow(tiny_base, photos):
    positions = {
        "input": {
            "key": "method.input",
            "levels": [
                "SA_in",
                "SA_out",
                "CA_in",
                "CA_out",
                "CA_c",
                "FFN_in",
                "FFN_out",
                "Trans_out",
                "Res_in",
                "Res_out",
            ],
        },
        "output": {
            "key": "method.output",
            "levels": list(get_args(Output)),
        },
    }
    expansion = expand(make(tiny_base, photos, factors={**positions, "method.scale": [1, 2]}))
    assert len(expansion.main) == 40  # the 20 pairs of arXiv 2303.18181
    assert expansion.combinations == 140
    assert sum(one.count for one in expansion.left_out) == 100
    assert all(one.count % 2 == 0 for one in expansion.left_out)
    assert "it cannot depend on it" in " ".join(one.reason for one in expansion.left_out)


def test_tasks_and_seeds_cross_every_combination(tiny_base, photos):
    tasks = {"dog": {"data.prompt": "a photo of sks dog"}, "cat": {"data": {"prompt": "a photo of sks cat"}}}
    expansion = expand(make(tiny_base, photos, tasks=tasks, seeds=[3, 5]))
    assert len(expansion.main) == len({cell.id for cell in expansion.main}) == 4 * 2 * 2
    cell = expansion.main[-1]
    assert (cell.task, cell.seed, cell.factors) == ("cat", 5, {"pair": "SA", "method.scale": 2})
    assert cell.config.data.prompt == "a photo of sks cat"
    assert cell.config.seed == 5
    method = cell.config.methods[0].model_dump()
    assert (method["input"], method["output"], method["scale"], method["width"]) == ("SA_in", "SA_in", 2.0, 2)
    assert [one.seed for one in expansion.main] == [3] * 8 + [5] * 8  # whole replicates, one after another


def test_a_study_that_grows_keeps_its_cells(tiny_base, photos):
    small = {cell.id for cell in expand(make(tiny_base, photos)).main}
    grown = {cell.id for cell in expand(make(tiny_base, photos, seeds=2)).main}
    changed = {cell.id for cell in expand(make(tiny_base, photos, budget={"steps": 4})).main}
    assert small < grown
    assert not small & changed


def test_a_section_comes_before_what_is_in_it(tiny_base, photos):
    factors = {"method.rank": [1, 2], "kind": {"key": "method", "levels": ["lora", "hira"]}}
    found = {
        (cell.config.methods[0].name, cell.config.methods[0].model_dump()["rank"])
        for cell in expand(make(tiny_base, photos, factors=factors)).main
    }
    assert found == {("lora", 1), ("lora", 2), ("hira", 1), ("hira", 2)}


def test_combinations_are_left_out_when_asked_and_when_they_are_the_same_run(tiny_base, photos):
    factors = {"method.scale": [1, 2], "size": {"levels": {"two": {"method.width": 2}, "small": {}}}}
    both = {"method.scale": [1, 2], "method.activation": ["relu", "silu"]}
    pattern = {"method.scale": [1], "method.activation": "silu"}
    expansion = expand(make(tiny_base, photos, factors=both, leave_out=[pattern]))
    assert len(expansion.main) == 3
    with pytest.raises(ConfigError, match="size=small: another combination comes to the same run such as"):
        expand(make(tiny_base, photos, factors=factors))


def test_a_level_that_is_nowhere_is_a_mistake(tiny_base, photos):
    with pytest.raises(ConfigError, match=r"levels that are in no cell:\n  method.scale=-: .*method.scale"):
        expand(make(tiny_base, photos, factors={"method.scale": [1, "-"]}))
    data = stated(tiny_base, photos)
    data["run"]["method"]["widht"] = 3
    with pytest.raises(ConfigError, match=r"no combination can be run:\n.*did you mean 'width'") as caught:
        expand(validate(Study, data))
    assert str(caught.value).count("widht") == 1  # not once for every level
    # Where combinations have mistakes of their own beside it, too.
    data["run"]["train"]["batch_size"] = "many"
    positions = {"method.input": ["SA_in", "Res_in"], "method.output": ["CA_in", "Res_out"]}
    with pytest.raises(ConfigError) as caught:
        expand(validate(Study, data | {"factors": positions}))
    mistaken = [line.partition(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert sorted(mistaken) == ["method.widht", "train.batch_size"]


def test_sizes_are_solved_for_equal_parameters(tiny_base, photos):
    methods = {
        "levels": {
            "adapter": {"method": {"name": "adapter"}},
            "lora": {"method": {"name": "lora"}},
            "bitfit": {"method": {"name": "bitfit"}},
        }
    }
    budget = {"steps": 5, "parameters": {"count": 3000, "tolerance": 0.2}}
    with pytest.raises(ConfigError, match=r"method=bitfit: bitfit trains .* parameters and has no size to change"):
        expand(make(tiny_base, photos, factors={"method": methods}, budget=budget))
    budget["parameters"]["unmatched"] = "keep"
    from inlay.study.outline import Outlines

    outlines = Outlines()
    cells = {
        cell.factors["method"]: cell.config
        for cell in expand(make(tiny_base, photos, factors={"method": methods}, budget=budget)).main
    }
    counts = {name: outlines.check(config).parameters for name, config in cells.items()}
    for name in ("adapter", "lora"):
        assert abs(counts[name] / 3000 - 1) <= 0.2
        size = {"adapter": "width", "lora": "rank"}[name]
        method = cells[name].methods[0]
        for other in (getattr(method, size) - 1, getattr(method, size) + 1):
            if other:
                near = outlines.outline(cells[name], [method.model_copy(update={size: other})]).parameters
                assert abs(near - 3000) >= abs(counts[name] - 3000)
    assert {config.train.steps for config in cells.values()} == {5}


def test_flops_are_turned_into_steps(tiny_base, photos):
    from inlay.run.plan import make_plan

    cells = expand(make(tiny_base, photos, factors={"method": ["bitfit", "full"]}, budget={"flops": 1e10})).main
    for cell in cells:
        work = make_plan(cell.config).work
        assert 0.5e10 < work.training_flops <= 1e10
    assert cells[0].config.train.steps > cells[1].config.train.steps  # full tuning's backward pass is longer
    with pytest.raises(ConfigError, match="does not pay for one step"):
        expand(make(tiny_base, photos, budget={"flops": 1e3}))


def test_a_tuned_setting_has_runs_of_its_own(tiny_base, photos):
    tuning = {"levels": [1e-3, 1e-2], "by": ["pair"], "seeds": [100, 101], "run": {"train.steps": 2}}
    study = make(tiny_base, photos, tuning=tuning)
    before = expand(study)
    assert len(before.tuning) == 2 * 2 * 2  # pairs, levels, seeds; scale at its first level
    assert {cell.config.learning_rate for cell in before.tuning} == {1e-3, 1e-2}
    assert {cell.config.train.steps for cell in before.tuning} == {2}
    assert {cell.factors["method.scale"] for cell in before.tuning} == {1}
    assert {cell.tuned for cell in before.main} == {None}
    after = expand(study, {'{"pair": "CA"}': 1e-2})
    assert {(cell.factors["pair"], cell.tuned) for cell in after.main} == {("CA", 1e-2), ("SA", None)}
    assert {cell.config.learning_rate for cell in after.main if cell.factors["pair"] == "CA"} == {1e-2}
    data = stated(tiny_base, photos, tuning=tuning)
    data["run"]["data"]["validation"] = 0
    with pytest.raises(ConfigError, match="no pictures are held out"):
        expand(validate(Study, data))


def test_metrics_that_no_run_measures_are_refused_before_any_runs(tiny_base, photos):
    data = stated(tiny_base, photos, measured=["clip_i"])
    asked = data["run"]["evaluate"]
    expand(validate(Study, data | {"metrics": ["clip_i", "clip_i@tabletop", "validation_loss", "smoothed_loss"]}))
    for metric in ("clip_j", "clip_t", "copied_share", "leave_one_out_loss"):
        with pytest.raises(ConfigError, match=f"{metric}; they measure validation_loss, smoothed_loss, clip_i; run.ev"):
            expand(validate(Study, data | {"metrics": [metric]}))
    # One cell that measures it is enough: the others' gaps are shown.
    some = {"evaluate.metrics": ["clip_i", "clip_t"]}
    expand(validate(Study, data | {"factors": {"judge": {"levels": {"a": {}, "b": some}}}, "metrics": ["clip_t"]}))
    # Runs that tune do not touch the test, unless they have one of their own.
    tuning = {"levels": [1e-3, 1e-2], "seeds": [100], "metric": "clip_i", "higher_is_better": True}
    with pytest.raises(ConfigError, match=r"tuning.metric=clip_i: the runs that tune do not measure it.*run.evaluate"):
        expand(validate(Study, data | {"tuning": tuning}))
    assert expand(validate(Study, data | {"tuning": tuning | {"run": {"evaluate": asked}}})).tuning
