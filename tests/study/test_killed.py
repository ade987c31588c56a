"""Studies that are killed at random moments, on two cores and on a cluster, by the real command line."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from inlay.study.ledger import read_ledger
from inlay.study.table import load_table
from tests.study.studies import stated

INLAY = str(Path(sys.executable).with_name("inlay"))
KILLS = 20


@pytest.fixture
def study_file(tiny_base, photos, tmp_path) -> Path:
    """A study of 24 cells of a few seconds."""
    data = stated(tiny_base, photos, seeds=3, execution={"retries": KILLS + 1})
    data["factors"]["method.activation"] = ["relu", "silu"]
    data["run"]["train"] |= {"steps": 12, "checkpoint_every": 2}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def command(study_file: Path, directory: Path, *more: str) -> list[str]:
    return [INLAY, "study", "run", str(study_file), "--output", str(directory), *more]


def run(study_file: Path, directory: Path, *more: str) -> None:
    done = subprocess.run(command(study_file, directory, *more), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


def steps_done(directory: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in directory.glob("cells/*/trace.jsonl"))


def finished(directory: Path) -> int:
    return len(list(directory.glob("cells/*/record.json")))


def check(directory: Path, undisturbed: Path) -> None:
    """Every cell exactly once, and the table of the other study but for its costs."""
    ended = [event["cell"] for event in read_ledger(directory) if event["event"] == "done"]
    rows, expected = load_table(directory), load_table(undisturbed)
    assert sorted(ended) == sorted(row.cell for row in rows)
    assert len(rows) == 24
    assert all(row.status == "done" for row in rows)
    assert [row.metrics for row in rows] == [row.metrics for row in expected]
    assert [(row.cell, row.factors, row.seed) for row in rows] == [(r.cell, r.factors, r.seed) for r in expected]
    for row in rows:
        trace = (directory / "cells" / row.cell / "trace.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in trace]
        assert steps == list(range(1, 13))


@pytest.mark.slow
def test_a_study_killed_at_random_moments_is_the_undisturbed_one(study_file, tmp_path):
    killed = tmp_path / "killed"
    chance = random.Random(0)
    kills = {"driver": 0, "worker": 0}
    driver = None
    try:
        while sum(kills.values()) < KILLS:
            if driver is None or driver.poll() is not None:
                driver = subprocess.Popen(
                    command(study_file, killed, "--workers", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            # Moments by work done, so that they fall on every part of the study however fast the machine is.
            wanted = steps_done(killed) + chance.randint(0, 18)
            while (steps_done(killed) < wanted or not psutil.Process(driver.pid).children()) and driver.poll() is None:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.5))
            workers = psutil.Process(driver.pid).children() if driver.poll() is None else []
            if workers and chance.random() < 0.6:
                chance.choice(workers).send_signal(signal.SIGKILL)
                kills["worker"] += 1
            elif driver.poll() is None:
                driver.send_signal(signal.SIGKILL)
                driver.wait()
                kills["driver"] += 1
            assert finished(killed) < 24, "nothing was left to kill"
    finally:
        if driver is not None and driver.poll() is None:
            driver.kill()
            driver.wait()
    print(kills, finished(killed), "of 24 done meanwhile")
    run(study_file, killed, "--workers", "2")
    assert kills["driver"] >= 3
    assert kills["worker"] >= 3
    run(study_file, tmp_path / "undisturbed", "--workers", "1")
    check(killed, tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_a_cluster_of_which_a_node_dies_gives_the_same_records(study_file, tmp_path, monkeypatch):
    utilities = pytest.importorskip("ray.cluster_utils", reason="the extra `cluster` is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    store = 80 * 2**20
    cluster = utilities.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": store, "include_dashboard": False}
    )
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=store)
        study = tmp_path / "cluster"
        driver = subprocess.Popen(
            command(study_file, study, "--cluster", cluster.address), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        while finished(study) < 9 and driver.poll() is None:
            time.sleep(0.2)
        cluster.remove_node(second, allow_graceful=False)
        output, _ = driver.communicate(timeout=1800)
        assert driver.returncode == 0, output.decode()
    finally:
        cluster.shutdown()
    run(study_file, tmp_path / "undisturbed", "--workers", "1")
    check(study, tmp_path / "undisturbed")
