import pytest

from inlay.errors import ConfigError
from inlay.run.load import validate
from inlay.study.settings import Study, flat, read_study

RUN = {"base": "tabletop", "data": "photos", "method": "lora", "train": {"steps": 3}}


def study(**changes):
    return validate(Study, {"run": RUN, **changes}, "s.yaml")


def test_short_forms_mean_the_long_ones():
    short = study(factors={"method.rank": [4, 8]}, seeds=3, design="full", budget={"parameters": 1000})
    long = study(
        factors={"method.rank": {"levels": [4, 8]}},
        seeds=[0, 1, 2],
        design={"kind": "full"},
        budget={"parameters": {"count": 1000}},
    )
    assert short == long


def test_numbers_that_yaml_takes_for_texts_are_numbers(tmp_path):
    (tmp_path / "s.yaml").write_text("run: {base: tabletop}\nfactors: {train.learning_rate: [1e-4, 3.0e-4]}\n")
    assert read_study(tmp_path / "s.yaml").factors["train.learning_rate"].names == (1e-4, 3e-4)


def test_the_run_may_be_another_file_and_overrides_apply(tmp_path):
    (tmp_path / "run.yaml").write_text("base: tabletop\n")
    (tmp_path / "s.yaml").write_text(f"run: {tmp_path / 'run.yaml'}\n")
    assert read_study(tmp_path / "s.yaml", ["seeds=2"]) == validate(Study, {"run": {"base": "tabletop"}, "seeds": 2})


def test_settings_are_flattened_but_for_sections_of_another_kind():
    assert flat({"data": {"source": "x", "prior": {"prompt": "y"}}, "method": {"name": "lora", "rank": 2}}) == {
        "data.source": "x",
        "data.prior.prompt": "y",
        "method": {"name": "lora", "rank": 2},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor": {}}, "factor: no such key; did you mean 'factors'?"),
        ({"design": "latin"}, "'latin' does not exist; one of 'full', 'fractional', 'random'"),
        ({"factors": {"a": []}}, "levels are empty"),
        ({"factors": {"a": [1, 1]}}, "name one twice"),
        ({"factors": {"seed": [0, 1]}}, "seeds are given as `seeds`"),
        ({"factors": {"a": {"key": "b", "levels": {"x": {}}}}}, "key has no effect"),
        ({"seeds": [1, 1]}, "give different whole numbers"),
        ({"seeds": 0}, "seeds"),
        ({"run": {**RUN, "output": "x"}}, "a study keeps its cells in its own directory"),
        ({"budget": {}}, "give one of steps, seconds and flops"),
        ({"budget": {"steps": 3, "seconds": 3}}, "steps and seconds each say how long"),
        ({"budget": {"steps": 3}, "tasks": {"t": {"train.epochs": 2}}}, "tasks.t sets train.epochs and budget"),
        ({"leave_out": [{"rank": 4}]}, "'rank' is no factor"),
        ({"factors": {"a": [1]}, "leave_out": [{"a": 2}]}, "2 is no level of it; allowed: 1"),
        ({"tuning": {"levels": [1, 2], "by": ["x"]}}, "no factors are called x"),
        ({"tuning": {"levels": [1]}}, "tuning.levels"),
        ({"seeds": [7], "tuning": {"levels": [1, 2], "seeds": [7]}}, "must be found on other ones"),
        (
            {"factors": {"train.learning_rate": [1, 2]}, "tuning": {"levels": [1, 2]}},
            "train.learning_rate, which tuning is to find",
        ),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError) as error:
        study(**changes)
    assert message in str(error.value)


def test_all_mistakes_come_at_once():
    with pytest.raises(ConfigError) as error:
        study(desing="full", seeds=[1, 1], budget={})
    assert "3 mistakes" in str(error.value)
