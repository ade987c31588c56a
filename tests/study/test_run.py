import errno
import json
import os

import pytest

from inlay.errors import ArtifactError, ConfigError
from inlay.study.directory import alone, at_work
from inlay.study.ledger import read_ledger
from inlay.study.report.build import write_report
from inlay.study.run import run_study
from inlay.study.status import study_status
from inlay.study.table import load_table
from inlay.study.worker import _disk_is_full
from tests.study.studies import Inline, Quiet, make


def events(directory, *kinds):
    return [event for event in read_ledger(directory) if event["event"] in kinds]


def test_a_study_ends_with_a_row_for_each_cell_and_is_not_done_again(tiny_base, photos, tmp_path):
    study = make(tiny_base, photos, title="Tiny")
    executor, watcher = Inline(), Quiet()
    outcome = run_study(study, tmp_path / "s", executor, watcher)
    assert (outcome.counts.done, outcome.counts.total, outcome.stopped) == (4, 4, False)
    assert executor.closed
    rows = load_table(tmp_path / "s")
    assert [(row.factors["pair"], row.factors["method.scale"], row.seed, row.status) for row in rows] == [
        (pair, scale, 0, "done") for pair in ("CA", "SA") for scale in (1, 2)
    ]
    assert all(row.metrics["validation_loss"] > 0 for row in rows)
    assert all(row.costs["trainable_parameters"] > 0 for row in rows)
    assert len({row.metrics["validation_loss"] for row in rows}) == 4
    again = Inline()
    assert run_study(study, tmp_path / "s", again, Quiet()).counts.done == 4
    assert again.begun == []
    assert len(events(tmp_path / "s", "done")) == 4
    status = study_status(tmp_path / "s")
    assert status["stages"] == {"main": {"done": 4, "failed": 0, "missing": 0}}
    assert status["driver"] is None


def test_one_base_serves_many_runs_and_changes_none(tiny_base, photos, tmp_path):
    """Full tuning trains and merges the base's own weights: the next cell must not see it."""
    factors = {"method": ["full", "lora"], "train.precision": ["bf16", "fp32"]}
    study = make(tiny_base, photos, factors=factors)
    run_study(study, tmp_path / "s", Inline(), Quiet())
    from inlay.run.directory import read_config
    from inlay.run.job import execute

    for row in load_table(tmp_path / "s"):
        config = read_config(tmp_path / "s" / "cells" / row.cell)
        alone_record = execute(config, tmp_path / "alone" / row.cell).record
        assert alone_record["metrics"]["validation_loss"] == row.metrics["validation_loss"]
        assert alone_record["base"]["hash"] is not None


def test_failures_are_kept_with_their_reason_and_tried_again_as_often_as_stated(tiny_base, photos, tmp_path):
    def fail(task):
        if "_2_" in task.cell:
            return {"kind": "failed", "cell": task.cell, "reason": "TrainingError: not finite", "seconds": 1.0}
        if "CA" in task.cell and task.cell not in lost:
            lost.append(task.cell)
            return {"kind": "lost", "cell": task.cell, "reason": "signal SIGKILL"}
        return None

    lost = []
    study = make(tiny_base, photos, execution={"retries": 2})
    watcher = Quiet()
    outcome = run_study(study, tmp_path, Inline(fail), watcher)
    assert (outcome.counts.done, outcome.counts.failed) == (2, 2)
    assert [kind for _, kind in watcher.ends].count("retried") == 5
    assert len(events(tmp_path, "failed")) == 6
    assert len(events(tmp_path, "lost")) == 1
    rows = {row.cell: row for row in load_table(tmp_path)}
    failed = [row for row in rows.values() if row.status == "failed"]
    assert len(rows) == 4
    assert {row.factors["method.scale"] for row in failed} == {2}
    assert {row.reason for row in failed} == {"TrainingError: not finite"}
    # What failed for good stays so, until it is taken up again.
    still = Inline()
    assert run_study(study, tmp_path, still, Quiet()).counts.failed == 2
    assert still.begun == []
    assert run_study(study, tmp_path, Inline(), Quiet(), again=True).counts.done == 4


def test_a_run_that_raises_is_a_failed_cell(tiny_base, photos, tmp_path):
    data = {"levels": {"good": {"train.learning_rate": 1e-3}, "bad": {"train.learning_rate": 1e30}}}
    study = make(tiny_base, photos, factors={"rate": data}, execution={"retries": 0})
    outcome = run_study(study, tmp_path, Inline(), Quiet())
    assert (outcome.counts.done, outcome.counts.failed) == (1, 1)
    [row] = [row for row in load_table(tmp_path) if row.status == "failed"]
    assert row.factors == {"rate": "bad"}
    assert "TrainingError: the loss at step 2 is not finite" in row.reason


def test_a_driver_that_died_before_it_wrote_done_writes_it_later(tiny_base, photos, tmp_path):
    study = make(tiny_base, photos)
    run_study(study, tmp_path, Inline(), Quiet())
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["event"] != "done"] + ['{"event":"done","ce']
    (tmp_path / "ledger.jsonl").write_text("".join(kept))
    executor = Inline()
    run_study(study, tmp_path, executor, Quiet())
    assert executor.begun == []
    assert len(events(tmp_path, "done")) == 4


def test_a_second_driver_is_refused_and_says_who_is_first(tiny_base, photos, tmp_path):
    study = make(tiny_base, photos)
    with alone(tmp_path, {}):
        assert at_work(tmp_path)["pid"] == os.getpid()
        (tmp_path / "study.yaml").write_text("run: {}\n")
        executor = Inline()
        with pytest.raises(ConfigError, match=rf"another `inlay study run` is at work .*process {os.getpid()} on"):
            run_study(study, tmp_path, executor, Quiet())
    assert executor.begun == []
    assert executor.closed
    assert at_work(tmp_path) is None


def test_a_full_disk_stops_the_study_and_fails_no_cell(tiny_base, photos, tmp_path):
    study = make(tiny_base, photos)

    def full(task):
        return {"kind": "failed", "cell": task.cell, "reason": "No space left", "fatal": True}

    with pytest.raises(ArtifactError, match="the disk is full"):
        run_study(study, tmp_path, Inline(full), Quiet())
    assert {row.status for row in load_table(tmp_path)} == {"missing"}
    assert run_study(study, tmp_path, Inline(), Quiet()).counts.done == 4


def test_a_full_disk_is_known_however_it_is_said():
    said = ArtifactError("cannot be written")
    said.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert _disk_is_full(said)
    assert _disk_is_full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not _disk_is_full(OSError(errno.EACCES, "Permission denied"))


def test_the_setting_is_found_before_the_study_begins(tiny_base, photos, tmp_path):
    tuning = {"levels": [1e-6, 1e-2, 1e30], "by": ["pair"], "run": {"train.steps": 3}}
    study = make(tiny_base, photos, tuning=tuning, execution={"retries": 0})
    executor = Inline()
    outcome = run_study(study, tmp_path, executor, Quiet())
    assert outcome.counts.done == 4 + 4  # two levels of two pairs, and the study; 1e30 fails
    assert all(cell.startswith("tuning") for cell in executor.begun[:6])
    assert not any(cell.startswith("tuning") for cell in executor.begun[6:])
    tried = load_table(tmp_path, "tuning")
    assert [row.status for row in tried].count("failed") == 2
    choices = {event["group"]: event for event in events(tmp_path, "choice")}
    assert set(choices) == {'{"pair": "CA"}', '{"pair": "SA"}'}
    for choice in choices.values():
        scores = choice["scores"]
        assert scores["1e+30"] is None
        best = min((level for level in scores if scores[level] is not None), key=scores.get)
        assert choice["level"] == float(best)
    for row in load_table(tmp_path):
        config = json.loads((tmp_path / "cells" / row.cell / "record.json").read_text())["config"]
        assert config["train"]["learning_rate"] == choices[json.dumps({"pair": row.factors["pair"]})]["level"]
    report, _ = write_report(tmp_path, load_table(tmp_path), tmp_path / "report")
    assert report.tuning is not None
    assert [column.title for column in report.tuning.columns] == ["pair", "1e-06", "0.01", "1e+30", "chosen"]
    for row in report.tuning.rows:
        choice = choices[json.dumps({"pair": row[0]})]
        assert row[1:] == (*choice["scores"].values(), str(choice["level"]))
    assert [row[0] for row in report.failures.rows] == [row.cell for row in tried if row.status == "failed"]
    # Once chosen, it stays: the study goes on with the same cells.
    again = Inline()
    run_study(study, tmp_path, again, Quiet())
    assert again.begun == []
    assert len(events(tmp_path, "choice")) == 2


def test_where_no_level_works_the_cells_say_so(tiny_base, photos, tmp_path):
    tuning = {"levels": [1e30, 1e31]}
    study = make(tiny_base, photos, tuning=tuning, execution={"retries": 0})
    run_study(study, tmp_path, Inline(), Quiet())
    rows = load_table(tmp_path)
    assert [row.status for row in rows] == ["failed"] * 4
    assert "no level of train.learning_rate has a result" in rows[0].reason


def test_a_study_may_grow_but_not_lose_results(tiny_base, photos, tmp_path):
    run_study(make(tiny_base, photos), tmp_path, Inline(), Quiet())
    executor = Inline()
    run_study(make(tiny_base, photos, seeds=2), tmp_path, executor, Quiet())
    assert len(executor.begun) == 4
    with pytest.raises(ConfigError, match="8 results, of which 8 belong to no cell of this study file"):
        run_study(make(tiny_base, photos, budget={"steps": 4}), tmp_path, Inline(), Quiet())


def test_neither_does_one_that_tunes_take_the_place_of_others_or_lose_results(tiny_base, photos, tmp_path):
    run_study(make(tiny_base, photos), tmp_path / "other", Inline(), Quiet())
    tuning = {"levels": [1e-3, 1e-2], "by": ["pair"]}
    tuned = make(tiny_base, photos, tuning=tuning)
    before = (tmp_path / "other" / "study.yaml").read_bytes()
    with pytest.raises(ConfigError, match="4 results, of which 4 belong to no cell of this study file"):
        run_study(tuned, tmp_path / "other", Inline(), Quiet())
    assert (tmp_path / "other" / "study.yaml").read_bytes() == before
    run_study(tuned, tmp_path / "tuned", Inline(), Quiet())
    executor = Inline()
    run_study(make(tiny_base, photos, tuning=tuning, seeds=2), tmp_path / "tuned", executor, Quiet())
    assert len(executor.begun) == 4
    changed = make(tiny_base, photos, tuning=tuning, budget={"steps": 4})
    with pytest.raises(ConfigError, match="12 results, of which 12 belong to no cell of this study file"):
        run_study(changed, tmp_path / "tuned", Inline(), Quiet())


def test_time_left_is_known_from_earlier_sittings(tiny_base, photos, tmp_path):
    def fail(task):
        return {"kind": "failed", "cell": task.cell, "reason": "not today", "seconds": 1.0}

    first, second = Quiet(), Quiet()
    run_study(make(tiny_base, photos, execution={"retries": 0}), tmp_path / "new", Inline(fail), first)
    assert [left for _, left in first.left] == [None] * 4
    run_study(make(tiny_base, photos), tmp_path / "s", Inline(), Quiet())
    took = [event["seconds"] for event in events(tmp_path / "s", "done")]
    grown = make(tiny_base, photos, seeds=2, execution={"retries": 0})
    run_study(grown, tmp_path / "s", Inline(fail), second)
    assert second.left == [(rest, pytest.approx(rest * sum(took) / 4)) for rest in (3, 2, 1, 0)]


def test_results_of_unequal_weights_of_one_base_are_not_mixed(tiny_base, photos, tmp_path):
    run_study(make(tiny_base, photos), tmp_path / "s", Inline(), Quiet())
    first, *_ = rows = load_table(tmp_path / "s")
    path = tmp_path / "s" / "cells" / first.cell / "record.json"
    record = json.loads(path.read_text())
    record["base"]["hash"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=f"have changed between its cells: 1 with 000000000000 .such as {first.cell}"):
        load_table(tmp_path / "s")
    for row in rows[1:]:
        path = tmp_path / "s" / "cells" / row.cell / "record.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base": record["base"]}))
    assert load_table(tmp_path / "s") == rows


def test_a_study_does_not_go_on_with_other_weights(tiny_base, photos, tmp_path):
    run_study(make(tiny_base, photos), tmp_path / "s", Inline(), Quiet())
    for path in (tmp_path / "s" / "cells").glob("*/record.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "base": {**record["base"], "hash": "0" * 64}}))
    executor = Inline()
    with pytest.raises(ConfigError, match="have changed between its cells: 4 with 000000000000"):
        run_study(make(tiny_base, photos, seeds=2), tmp_path / "s", executor, Quiet())
    assert len(executor.begun) == 1
    assert executor.closed


def test_missing_pictures_are_said_before_anything_runs(tiny_base, photos, tmp_path):
    tasks = {"here": {"data.source": str(photos)}, "gone": {"data.source": str(tmp_path / "gone")}}
    executor = Inline()
    with pytest.raises(Exception, match="gone"):
        run_study(make(tiny_base, photos, tasks=tasks), tmp_path / "s", executor, Quiet())
    assert executor.begun == []
    assert not (tmp_path / "s").exists()


def test_another_directory_is_left_alone(tiny_base, photos, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="holds other files"):
        run_study(make(tiny_base, photos), tmp_path, Inline(), Quiet())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
