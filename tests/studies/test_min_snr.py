"""The scripts of studies/min-snr, on trainings of four steps."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "studies" / "min-snr"
MODULES = ("protocol", "features", "study", "report")


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(FOLDER))
    import protocol
    import report
    import study

    for module, name, value in [
        (protocol, "STEPS", 4),
        (protocol, "WARMUP", 0),
        (protocol, "BATCH", 4),
        (protocol, "MEASURED", (1, 2, 4)),
        (report, "MEASURED", (1, 2, 4)),
        (protocol, "RECORDS", tmp_path),
        (report, "RECORDS", tmp_path),
        (report, "HERE", tmp_path),
        (study, "PICTURES", 16),
        (study, "LOSSES", 8),
    ]:
        monkeypatch.setattr(module, name, value)
    yield protocol, study, report
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_training_becomes_a_record_and_is_not_repeated(scripts, tmp_path, monkeypatch, capsys):
    _, study, report = scripts
    monkeypatch.setattr(sys, "argv", ["study.py", "--seeds", "1", "--most", "1", "--runs", str(tmp_path / "runs")])
    study.main()
    record = json.loads((tmp_path / "eps-snr-seed0.json").read_text())
    assert [entry["step"] for entry in record["distances"]] == [1, 2, 4]
    assert all(entry["value"] > 0 and entry["pictures"] == 16 for entry in record["distances"])
    assert len(record["losses"]["clean_error"]) == 10
    monkeypatch.setattr(sys, "argv", ["study.py", "--seeds", "1", "--list"])
    capsys.readouterr()
    study.main()
    listed = capsys.readouterr().out.split()
    assert len(listed) == 17
    assert "eps-snr-seed0" not in listed
    report.main()
    said = (tmp_path / "report.md").read_text()
    assert "1 of 54 trainings are there: 1 of 18 settings" in said
    assert "not run yet" in said


def records(settings, seeds, distance):
    return [
        {
            "setting": setting,
            "seed": seed,
            "parameters": 1,
            "training_seconds": 1.0,
            "distances": [{"step": step, "value": distance(setting, seed)} for step in (1, 2, 4)],
            "losses": {"edges": list(range(11)), "clean_error": [1.0] * 10},
        }
        for setting in settings
        for seed in range(seeds)
    ]


def test_verdicts_follow_from_intervals(scripts):
    _, _, report = scripts
    random = np.random.default_rng(0)

    def distance(setting, seed):
        level = {"x0-snr": 9.0, "x0-constant": 1.0, "x0-max_snr": 1.0}[setting]
        return level * (1 + 0.1 * random.random())

    table = report.gather(records(["x0-snr", "x0-constant", "x0-max_snr"], 4, distance))
    assert report.compare(table, "x0-snr", "x0-constant", report.final)[0] == "higher"
    assert report.compare(table, "x0-constant", "x0-snr", report.final)[0] == "lower"
    assert report.compare(table, "x0-max_snr", "x0-constant", report.final)[0].startswith("no difference")
    rows = report.findings(table)
    assert "**reproduced**" in rows[2]
    assert "not run yet" in rows[4]


def test_one_seed_has_no_verdict(scripts):
    _, _, report = scripts
    table = report.gather(records(["x0-snr", "x0-constant"], 1, lambda setting, seed: 2.0))
    assert report.compare(table, "x0-snr", "x0-constant", report.final)[0] == "one seed, so no verdict"


def test_the_committed_records_are_of_the_protocol(monkeypatch):
    """Whoever changes the protocol has to run the study again."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import protocol

    try:
        wanted = {cell.setting for cell in protocol.cells(1)}
        found = protocol.read_records()
        assert {record["setting"] for record in found} <= wanted
        for record in found:
            assert [entry["step"] for entry in record["distances"]] == list(protocol.MEASURED)
    finally:
        sys.modules.pop("protocol", None)
