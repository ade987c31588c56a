import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import inlay
from inlay.cli.doctor import examine
from inlay.cli.main import main

CODE = "import sys; from inlay.cli.main import main; sys.exit(main())"


@pytest.fixture
def report(tmp_path):
    """Return a function that gives the report of a process which finds the packages of ``tmp_path`` first."""

    def run(**environment: str) -> dict:
        paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        result = subprocess.run(
            [sys.executable, "-c", CODE, "doctor", "--json"],
            env={**os.environ, "PYTHONPATH": paths, **environment},
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(result.stdout)

    return run


def add_metadata(site: Path, name: str, version: str, *lines: str) -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""])
    (folder / "METADATA").write_text(text, encoding="utf-8")


def problem_about(report: dict, words: str) -> dict:
    (problem,) = [problem for problem in report["problems"] if words in problem["what"]]
    return problem


def test_the_report_describes_this_machine(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["inlay"] == inlay.__version__
    assert report["python"]["executable"] == sys.executable
    assert report["cpu"]["memory_bytes"] == psutil.virtual_memory().total
    assert 1 <= report["cpu"]["cores"] <= (os.cpu_count() or 1)
    packages = {package["name"]: package for package in report["packages"]}
    import torch

    assert packages["torch"]["version"] == torch.__version__
    assert packages["torch"]["fits"]
    assert packages["torch"]["extra"] is None
    assert packages["datasets"]["extra"] == "hub"
    assert packages["datasets"]["install"] == 'pip install "inlay[hub]"'
    assert report["disk"]["cache"]["path"] == os.environ["INLAY_CACHE"]
    assert report["disk"]["cache"]["free_bytes"] > 0
    assert len(report["accelerators"]) == torch.cuda.device_count() + torch.backends.mps.is_available()


def test_the_table_names_what_the_report_holds(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("torch", "diffusers", "tensorboard", "cpu", "cache", "embedded base"):
        assert word in shown


def test_a_package_that_is_missing_or_too_old_is_named_with_its_remedy(tmp_path, monkeypatch):
    needs = ["nobody-has-this>=2", "typer>=9999", 'nobody-has-that; extra == "more"', 'typer; python_version > "3"']
    add_metadata(tmp_path, "inlay", "0.1.0", "Provides-Extra: more", *(f"Requires-Dist: {need}" for need in needs))
    monkeypatch.syspath_prepend(tmp_path)
    report = examine()
    assert not report["ok"]
    missing = problem_about(report, "nobody-has-this is missing")
    assert missing == {**missing, "level": "error", "remedy": 'pip install "nobody-has-this>=2"'}
    assert problem_about(report, "typer>=9999 is needed")["level"] == "error"
    optional = report["packages"][2]
    assert (optional["extra"], optional["version"], optional["install"]) == ("more", None, 'pip install "inlay[more]"')
    assert not any("nobody-has-that" in problem["what"] for problem in report["problems"])
    assert report["packages"][3]["extra"] is None


def test_a_torchvision_for_another_torch_is_recognised(tmp_path, report):
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist\\nmore lines')\n", encoding="utf-8"
    )
    add_metadata(tmp_path, "torchvision", "0.28.0")
    found = report()
    assert found["torchvision"] == {
        "version": "0.28.0",
        "works": False,
        "error": "RuntimeError: operator torchvision::nms does not exist",
    }
    assert problem_about(found, "torchvision 0.28.0")["remedy"].startswith("pip uninstall torchvision")
    assert not found["ok"]


def test_a_torchvision_that_works_is_let_be(tmp_path, report):
    (tmp_path / "torchvision.py").write_text("", encoding="utf-8")
    add_metadata(tmp_path, "torchvision", "0.28.0")
    found = report()
    assert found["torchvision"]["works"]
    assert not any("torchvision" in problem["what"] for problem in found["problems"])


def test_a_broken_torch_does_not_stop_the_doctor(tmp_path, report):
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: cannot open')\n", encoding="utf-8")
    found = report()
    problem = problem_about(found, "torch cannot be imported (OSError: libtorch.so: cannot open)")
    assert problem["remedy"] == 'pip install "torch==2.13.0"'
    assert found["accelerators"] == []
    assert not found["ok"]


def test_folders_are_judged_where_they_will_be_made(tmp_path, report):
    found = report(INLAY_CACHE=str(tmp_path / "not" / "yet"), HF_HOME=str(tmp_path / "hub"))
    assert found["disk"]["cache"]["path"] == str(tmp_path / "not" / "yet")
    assert found["disk"]["models"]["path"] == str(tmp_path / "hub" / "hub")
    assert found["disk"]["runs"]["path"] == str(tmp_path)
    assert found["disk"]["cache"]["writable"]
    assert not (tmp_path / "not").exists()
