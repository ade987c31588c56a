from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch

from inlay.data import cache as cache_module
from inlay.data.cache import TensorCache, cache_directory
from inlay.errors import DataError


class Squares:
    """Computes a tensor per key and remembers which batches it was asked for."""

    def __init__(self):
        self.batches = []

    def __call__(self, keys):
        self.batches.append(list(keys))
        numbers = torch.tensor([float(key) for key in keys])
        return {"mean": numbers[:, None].expand(-1, 3), "std": (numbers**2).to(torch.bfloat16)}


KEYS = [str(number) for number in range(10)]


def test_get_returns_what_was_computed_in_the_order_asked_for(tmp_path):
    cache = TensorCache("a", tmp_path)
    cache.build(KEYS, Squares(), batch_size=4)
    found = cache.get(["3", "0", "3"])
    assert found["mean"].tolist() == [[3, 3, 3], [0, 0, 0], [3, 3, 3]]
    assert found["std"].dtype == torch.bfloat16
    assert found["std"].tolist() == [9, 0, 9]


def test_a_second_build_computes_nothing_and_another_fingerprint_everything(tmp_path):
    TensorCache("a", tmp_path).build(KEYS, Squares())
    same, other = Squares(), Squares()
    TensorCache("a", tmp_path).build(KEYS, same)
    TensorCache("b", tmp_path).build(KEYS, other)
    assert same.batches == []
    assert [key for batch in other.batches for key in batch] == KEYS


def test_only_batches_with_missing_keys_are_computed(tmp_path):
    TensorCache("a", tmp_path).build(KEYS[:4], Squares(), batch_size=4)
    squares = Squares()
    TensorCache("a", tmp_path).build(KEYS, squares, batch_size=4)
    assert squares.batches == [KEYS[4:8], KEYS[8:]]


def test_repeated_keys_count_once_and_progress_reaches_the_end(tmp_path):
    squares, told = Squares(), []
    TensorCache("a", tmp_path).build([*KEYS, *KEYS], squares, batch_size=4, progress=lambda *state: told.append(state))
    assert [key for batch in squares.batches for key in batch] == KEYS
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_an_unknown_key_is_an_error(tmp_path):
    cache = TensorCache("a", tmp_path)
    cache.build(["1"], Squares())
    assert "2" not in cache
    with pytest.raises(KeyError):
        cache.get(["1", "2"])


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_broken_shard_is_dropped_and_built_again(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(cache_module, "SHARD_BYTES", 1)
    cache = TensorCache("a", tmp_path)
    cache.build(KEYS, Squares(), batch_size=5)
    expected = cache.get(KEYS)["mean"]
    shards = sorted(cache.directory.glob("*.safetensors"))
    assert len(shards) == 2
    content = bytearray(shards[0].read_bytes())
    content[-1] ^= 1
    shards[0].write_bytes({"flip": bytes(content), "truncate": content[:-10], "empty": b""}[damage])
    squares = Squares()
    again = TensorCache("a", tmp_path)
    again.build(KEYS, squares, batch_size=5)
    assert len(squares.batches) == 1
    assert torch.equal(again.get(KEYS)["mean"], expected)


CHILD = """
import os, signal, sys, torch
from pathlib import Path
from inlay.data import cache
cache.SHARD_BYTES = 1
def compute(keys):
    if "6" in keys:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": torch.tensor([float(key) for key in keys])}
cache.TensorCache("a", Path(sys.argv[1])).build([str(i) for i in range(10)], compute, batch_size=2)
"""


def test_a_killed_build_keeps_its_shards(tmp_path):
    ended = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], timeout=120)
    assert ended.returncode == -signal.SIGKILL
    asked = []

    def compute(keys):
        asked.append(list(keys))
        return {"x": torch.tensor([float(key) for key in keys])}

    cache = TensorCache("a", tmp_path)
    cache.build(KEYS, compute, batch_size=2)
    assert asked == [["6", "7"], ["8", "9"]]
    assert cache.get(KEYS)["x"].tolist() == list(range(10))


def test_a_process_that_only_reads_sees_new_shards_after_refresh(tmp_path):
    reader, writer = TensorCache("a", tmp_path), TensorCache("a", tmp_path)
    writer.build(KEYS, Squares())
    assert "1" not in reader
    reader.refresh()
    assert "1" in reader


def test_unfinished_files_are_ignored_and_removed_once_old(tmp_path):
    cache = TensorCache("a", tmp_path)
    cache.directory.mkdir(parents=True)
    old, young = cache.directory / "x.1.unfinished", cache.directory / "y.2.unfinished"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.build(KEYS, Squares())
    assert not old.exists()
    assert young.exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*cannot be written.*INLAY_CACHE"):
        TensorCache("a", tmp_path / "file").build(["1"], Squares())


def test_the_environment_chooses_the_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    assert TensorCache("a").directory.parent == tmp_path
    monkeypatch.delenv("INLAY_CACHE")
    assert cache_directory().parts[-2:] == (".cache", "inlay")


def test_what_is_kept_stays_when_its_batch_is_computed_again(tmp_path):
    cache = TensorCache("one", tmp_path)
    cache.build(["a", "b"], lambda keys: {"x": torch.zeros(len(keys))})
    cache.build(["a", "b", "c"], lambda keys: {"x": torch.ones(len(keys))})
    assert cache.get(["a", "b", "c"])["x"].tolist() == [0, 0, 1]
    assert TensorCache("one", tmp_path).get(["a", "b", "c"])["x"].tolist() == [0, 0, 1]
