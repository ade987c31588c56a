import json
import subprocess
import sys
from contextlib import closing

import pytest
import yaml

from inlay.cli.main import main
from inlay.study.cells import expand
from inlay.study.directory import write_design
from inlay.study.ledger import Ledger
from tests.study.studies import make, stated


@pytest.fixture
def study_file(tiny_base, photos, tmp_path):
    data = stated(tiny_base, photos, title="Where?")
    data["factors"]["pair"]["levels"]["no"] = {"method.input": "FFN_in", "method.output": "SA_in"}
    path = tmp_path / "where.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_plan_run_status(study_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "plan", str(study_file)]) == 2
    assert "pair=no: method: FFN_in -> SA_in: SA_in is computed before FFN_in" in capsys.readouterr().err
    data = yaml.safe_load(study_file.read_text())
    del data["factors"]["pair"]["levels"]["no"]
    data["factors"]["method.scale"] = [1]
    study_file.write_text(yaml.safe_dump(data))

    assert main(["study", "plan", str(study_file), "--speed", "1e9", "--workers", "1", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["cells"], plan["runs"], plan["done"]) == (2, 2, 0)
    [group] = plan["groups"]
    assert (group["cells"], group["steps"]) == (2, 3)
    assert plan["finish_seconds"] == pytest.approx(2 * group["run_seconds"])
    assert plan["disk_bytes"] > 2 * group["result_bytes"]
    assert main(["study", "plan", str(study_file), "--cells"]) == 0
    assert "CA_s0_" in capsys.readouterr().out

    assert main(["study", "run", str(study_file), "--workers", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "directory": "runs/where",
        "total": 2,
        "done": 2,
        "failed": 0,
        "stopped": False,
    }
    assert main(["study", "status", str(study_file)]) == 0
    shown = capsys.readouterr().out
    assert "Where?: full factorial: all 2 combinations" in shown
    assert "nobody is at work on it" in shown

    assert main(["study", "plan", "runs/where", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["done"] == 2
    assert plan["speed_from"] == "2 finished runs"
    assert plan["groups"][0]["measured"]
    assert plan["finish_seconds"] == 0


def test_a_plan_tells_apart_what_tunes_and_what_is_compared(tiny_base, photos, tmp_path, capsys):
    methods = {"lora": {"method": "lora"}, "small": {"method": {"name": "adapter", "width": 1}}}
    tuning = {"by": ["method"], "levels": [1e-4, 1e-3], "metric": "validation_loss"}
    tasks = {task: {"data.prompt": f"a photo of sks {task}"} for task in ("dog", "cat")}
    data = stated(tiny_base, photos, factors={"method": {"levels": methods}}, tuning=tuning, tasks=tasks)
    del data["run"]["method"], data["run"]["train"]["learning_rate"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(data))
    assert main(["study", "plan", str(tmp_path / "study.yaml"), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["cells"], plan["cells_by_task"], plan["runs"]) == (4, {"dog": 2, "cat": 2}, 8)
    names = {group["name"]: group["cells"] for group in plan["groups"]}
    tuned = {"tuning lora": 2, "tuning small": 2}
    assert names == tuned | {f"{method} on {task}": 1 for method in methods for task in tasks}


def test_costs_are_told_apart_where_levels_are_named_as_their_methods(tiny_base, photos, tmp_path, capsys):
    methods = {"lora": {"method": "lora"}, "adapter": {"method": {"name": "adapter", "width": 1}}}
    factors = {"method": {"levels": methods}, "train.batch_size": [1, 2]}
    data = stated(tiny_base, photos, factors=factors)
    del data["run"]["method"]
    data["run"]["train"].pop("batch_size", None)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(data))
    assert main(["study", "plan", str(tmp_path / "study.yaml"), "--json"]) == 0
    names = [group["name"] for group in json.loads(capsys.readouterr().out)["groups"]]
    assert sorted(names) == [f"{method}, train.batch_size={size}" for method in sorted(methods) for size in (1, 2)]


def test_a_directory_that_is_no_study_is_said(tmp_path, capsys):
    assert main(["study", "status", str(tmp_path)]) == 2
    assert "not a study directory" in capsys.readouterr().err
    assert main(["study", "run", str(tmp_path)]) == 2


def test_workers_and_cluster_exclude_each_other(study_file, capsys):
    assert main(["study", "run", str(study_file), "--workers", "2", "--cluster", "auto"]) == 2
    assert "leave out one" in capsys.readouterr().err


def test_status_shows_what_was_found_by_tuning(tiny_base, photos, tmp_path, capsys):
    study = make(tiny_base, photos, tuning={"by": ["pair"], "levels": [1e-3, 1e-2]})
    write_design(tmp_path, study, expand(study))
    scores = {"0.001": 0.5128434156920975, "0.01": 1234.5}
    with closing(Ledger(tmp_path)) as ledger:
        ledger.append("choice", group='{"task": null, "pair": "CA"}', level=0.01, scores=scores)
    assert main(["study", "status", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "pair=CA 0.01 0.001: 0.513, 0.01: 1,230" in shown


def test_status_and_tables_do_without_torch():
    code = (
        "import sys; import inlay.cli.study, inlay.study.status, inlay.study.table, inlay.study.settings; "
        "import inlay.study.report.words; "
        "print([name for name in ('torch', 'diffusers', 'transformers', 'peft', 'ray') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_planning_imports_no_more_than_a_plan_of_one_run():
    code = (
        "import sys; import inlay.study.plan, inlay.study.cells, inlay.study.pool; "
        "print([name for name in ('diffusers', 'transformers', 'peft', 'accelerate', 'ray') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
