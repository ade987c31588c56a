import json

import pytest
import yaml

from inlay.cli.main import main


def test_advice_is_written_as_a_run_file_that_can_be_planned(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    assert main(["advise", "--memory", "700MiB", "--file-size", "200kB", "--write", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Take ")
    assert "95 % interval" in said
    assert "beyond the budget" in said
    written = file.read_text()
    assert written.startswith("# Advised by `inlay advise`.")
    assert yaml.safe_load(written)["train"]["steps"] == 200
    assert main(["plan", str(file), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["disk"]["result_bytes"] < 200_000
    assert main(["advise", "--write", str(file)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_json_and_the_user_s_own_pictures(capsys):
    options = ["--task", "style", "--data", "photos", "--prompt", "in the style of sks", "--json"]
    assert main(["advise", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "style"
    low, high = found["best"]["interval"]
    assert low < found["best"]["expected"] < high
    assert found["run"]["data"]["source"] == "photos"


def test_a_word_to_learn_is_put_into_the_caption(capsys):
    assert main(["advise", "--file-size", "3kB", "--data", "photos", "--prompt", "a photo of sks dog", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert run["method"]["name"] == "textual_inversion"
    assert run["data"]["prompt"] == "a photo of <new> dog"


def test_another_base_is_planned_for(tiny_base, capsys, monkeypatch):
    from inlay.study import advice_records

    few = advice_records.shipped("subject")
    kept = tuple(one for one in few.candidates if one.name in ("lora", "lora-1e-3", "full"))
    monkeypatch.setattr(advice_records, "shipped", lambda task: type(few)(**{**vars(few), "candidates": kept}))
    assert main(["advise", "--base", str(tiny_base), "--file-size", "300kB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"]["name"] in ("lora", "lora-1e-3")  # one of them: their run files are the same here
    assert found["runner_up"] is None
    assert found["best"]["costs"]["result_bytes"] < 300_000
    assert "learning_rate" not in found["run"]["train"]
    assert "an assumption" in " ".join(found["says"])


def test_another_base_is_made_to_fit_into_the_memory(tiny_base, capsys, monkeypatch):
    from inlay.run import plan
    from inlay.study import advice_records

    machine = plan.this_machine()  # the memory of this very process, which is counted too, must not change meanwhile
    monkeypatch.setattr(plan, "this_machine", lambda: machine)
    few = advice_records.shipped("subject")
    kept = tuple(one for one in few.candidates if one.name == "lora")
    monkeypatch.setattr(advice_records, "shipped", lambda task: type(few)(**{**vars(few), "candidates": kept}))

    def advise(*limits: str):
        assert main(["advise", "--base", str(tiny_base), *limits, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        return found["best"]["costs"]["peak_bytes"], found["run"]["train"], " ".join(found["says"])

    peak, train, says = advise()
    assert train == {"steps": 200, "batch_size": 4}
    assert "To fit into the memory" not in says
    assert advise("--memory", f"{peak:.0f}")[1] == train  # what fits is left as it is
    lower, train, says = advise("--memory", f"{peak - 1:.0f}")
    assert lower < peak
    assert train == {"steps": 200, "batch_size": 4, "precision": "bf16"}
    assert "To fit into the memory, it trains with bf16." in says
    assert main(["advise", "--base", str(tiny_base), "--memory", "1MB"]) == 2
    least = capsys.readouterr().err
    assert "no setting is within this budget; lora has the least peak memory" in least


def test_all_that_saves_memory_is_tried_where_it_is_allowed(tiny_base):
    from inlay.methods import Full, Lora
    from inlay.run.config import RunConfig
    from inlay.run.load import validate
    from inlay.study.advice_records import for_base, planned_on, shipped

    records = for_base(shipped("subject"), str(tiny_base))
    told = []
    plan = planned_on(1.0, told.append)
    methods = {validate(RunConfig, dict(one.settings)).method: one for one in records.candidates}
    found = {method.name: plan(one) for method, one in methods.items() if method in (Full(), Lora())}
    savings = ("bf16", "gradient checkpointing", "a picture at a time", "frozen weights of 8 bits")
    assert found["lora"].economies == savings
    assert found["lora"].settings["train"]["quantize"] == "int8"
    assert found["full"].economies == savings[:3]
    assert len(told) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "portrait"], "allowed: subject, style"),
        (["--memory", "lots"], "--memory: 'lots' is no size"),
        (["--file-size", "10"], "no setting is within this budget"),
        (["--metric", "kid"], "--metric chooses among the metrics of a --study"),
        (["--study", "nowhere"], "not a study directory"),
        (["--base", "sd-v1.4", "--seconds", "60"], "leave it out"),
        (["--base", "nowhere"], "nowhere"),
    ],
)
def test_mistakes(options, message, capsys):
    assert main(["advise", *options]) == 2
    assert message in capsys.readouterr().err
