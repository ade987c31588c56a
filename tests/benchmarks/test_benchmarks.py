"""Every benchmark runs, at its smallest, and reports figures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALLEST = {
    "attention": [],
    "memory": ["--resolution", "64", "--batch", "1", "--settings", "1"],
    "rendering": ["--pictures", "4", "--rounds", "1"],
    "tuning_step": ["--resolution", "64", "--batch", "1", "--rounds", "1"],
    "weighting": ["--rounds", "1"],
}


def test_every_benchmark_is_listed_here():
    assert {path.stem for path in BENCHMARKS.glob("*.py")} == set(SMALLEST)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_runs_and_reports_figures(name, tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", *SMALLEST[name]], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\.\d", done.stdout)
