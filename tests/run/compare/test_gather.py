import json
from pathlib import Path

import pytest

from inlay.errors import ConfigError
from inlay.run.compare.comparison import compare, to_json
from inlay.run.compare.gather import gather
from inlay.run.compare.settings import differences, method_labels


def test_runs_that_did_not_finish_are_shown_as_far_as_they_came(make_run):
    places = [
        make_run("good"),
        make_run("stopped", steps=7, status="stopped"),
        make_run("broken", steps=3, status="failed", record={"error": "the loss is not finite"}),
        make_run("killed", steps=5, status=None),
    ]
    with (places[3] / "trace.jsonl").open("a") as trace:
        trace.write('{"step": 6, "lo')  # a process that was killed while it wrote
    runs, left_out = gather(places)
    assert left_out == []
    assert [run.status for run in runs] == ["done", "stopped", "failed", "unfinished"]
    assert [run.steps for run in runs] == [20, 7, 3, 5]
    assert [run.says for run in runs] == [
        "",
        "stopped after step 7 of 20",
        "failed after step 3 of 20: the loss is not finite",
        "no record; its trace ends after step 5 of 20, so it failed, was killed, or is at work",
    ]


def test_what_is_no_run_is_left_out_with_a_note(make_run, tmp_path):
    run = make_run("good")
    (tmp_path / "runs" / "notes").mkdir()
    broken = make_run("broken")
    (broken / "record.json").write_text("{")
    runs, left_out = gather([run, tmp_path / "runs" / "notes", broken])
    assert [run.name for run in runs] == ["good"]
    assert left_out[0] == "notes: left out, because it is no run directory"
    assert left_out[1].startswith("broken: left out, because a file of it is broken")


def test_without_any_run_there_is_one_message(tmp_path):
    with pytest.raises(ConfigError, match=r"no run directory; one has run.yaml and trace.jsonl"):
        gather([tmp_path])
    with pytest.raises(ConfigError, match="absent: no such directory"):
        gather([tmp_path / "absent"])


def test_equal_names_get_as_much_of_their_path_as_tells_them_apart(make_run):
    runs, _ = gather([make_run("a/lora"), make_run("b/lora"), make_run("b/full")])
    assert [run.name for run in runs] == ["a/lora", "b/lora", "b/full"]


def test_a_run_that_is_given_twice_counts_once_and_keeps_its_path_as_given(make_run, monkeypatch):
    run = make_run("lora")
    monkeypatch.chdir(run.parent)
    runs, _ = gather([Path("lora"), run])
    assert [(run.name, run.directory) for run in runs] == [("lora", Path("lora"))]
    monkeypatch.chdir(run)
    assert [run.name for run in gather([Path()])[0]] == ["lora"]


def test_only_settings_that_differ_are_listed_and_the_rate_is_the_one_in_use(make_run):
    runs, _ = gather([make_run("lora"), make_run("prefix", {"name": "prefix", "length": 10})])
    found = differences([run.config for run in runs])
    assert found["method.name"] == ["lora", "prefix"]
    assert found["method.rank"] == ["8", None]
    assert "seed" not in found
    assert "train.steps" not in found
    from inlay.methods import METHODS

    assert [float(rate) for rate in found["train.learning_rate"]] == [
        METHODS["lora"].learning_rate,
        METHODS["prefix"].learning_rate,
    ]


def test_a_setting_that_is_off_is_no_difference_to_a_run_made_before_there_was_one():
    earlier, later = {"seed": 0, "data": {"prompt": "a"}}, {"seed": 0, "data": {"prompt": "a", "mask": None}}
    assert differences([earlier, {**later, "start_from": []}]) == {}
    assert differences([earlier, {**later, "start_from": ["runs/a"]}]) == {"start_from": [None, "runs/a"]}
    assert differences([later, {**earlier, "data": {"prompt": None, "mask": None}}]) == {"data.prompt": ["a", "null"]}


def test_a_method_is_called_by_what_sets_it_apart(make_run):
    runs, _ = gather(
        [
            make_run("one", {"name": "adapter", "input": "CA_out", "output": "FFN_in", "scale": 1.0}),
            make_run("two", {"name": "adapter", "input": "SA_in", "output": "FFN_in", "scale": 1.0}),
            make_run("three", {"name": "lora", "rank": 8}),
        ]
    )
    assert method_labels(runs) == ["adapter, input CA_out", "adapter, input SA_in", "lora"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"record": {"base__hash": "e" * 64}}, "Runs of 2 bases: tabletop bbbbbbbb (one); tabletop eeeeeeee (two)."),
        ({"record": {"data__hash": "e" * 64}, "config": {"data__source": "cats"}}, "toys (one); cats (two)"),
        ({"record": {"data__resolution": 32}}, "Trained at 2 resolutions: 16 (one); 32 (two)."),
        ({"record": {"hardware": {"gpus": ["H200"], "cores": 8}}}, "1 threads of 2 cores (one); H200 (two)"),
    ],
)
def test_what_cannot_be_compared_is_said(make_run, change, message):
    comparison = compare([make_run("one"), make_run("two", **change)])
    assert any(message in note for note in comparison.notes)


def test_a_run_that_went_on_from_another_is_told(make_run):
    notes = compare([make_run("one"), make_run("two", config={"start_from": ["runs/one"]})]).notes
    assert [note for note in notes if "went on" in note] == [
        "two went on from runs/one: its steps and seconds are those after."
    ]


def test_one_run_of_each_setting_is_said_and_several_seeds_are_not(make_run):
    places = [make_run("one"), make_run("two", {"name": "full"})]
    assert any("another seed might change places" in note for note in compare(places).notes)
    places.append(make_run("again", config={"seed": 1}))
    assert not any("another seed" in note for note in compare(places).notes)


def test_the_comparison_is_json(make_run, measured):
    places = [make_run("one", record=measured(0.5, 0.4, 0.6)), make_run("two", status=None)]
    found = json.loads(json.dumps(to_json(compare(places)), allow_nan=False))
    assert found["runs"][0]["metrics"]["clip_i"]["interval"] == [0.4, 0.6]
    assert found["runs"][1]["costs"]["trainable_parameters"] is None
    assert found["runs"][1]["metrics"]["clip_i"]["reason"] == "unfinished"
