"""Pickles: data is read, and whatever asks for more is refused before it runs."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from inlay.artifacts.unpickle import read_pickle
from inlay.errors import ArtifactError


class Runs:
    """What a hostile pickle holds: a call, made when the file is read."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_containers_are_read_from_both_formats_of_torch(tmp_path, zipped):
    data = {
        320: (OrderedDict(a=torch.randn(2, 3)), {"b": torch.ones(2, dtype=torch.float16)}),
        "name": "wört",
        "step": 3,
        "list": [1.5, None, True],
    }
    torch.save(data, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    again = read_pickle(tmp_path / "file.pt")
    assert torch.equal(again[320][0]["a"], data[320][0]["a"])
    assert again[320][1]["b"].dtype == torch.float16
    assert {key: again[key] for key in ("name", "step", "list")} == {key: data[key] for key in ("name", "step", "list")}


def test_parameters_come_as_plain_tensors(tmp_path):
    data = {"parameter": nn.Parameter(torch.ones(2)), "dict": nn.ParameterDict({"*": nn.Parameter(torch.zeros(1, 2))})}
    torch.save(data, tmp_path / "file.pt")
    again = read_pickle(tmp_path / "file.pt")
    assert not again["parameter"].requires_grad
    assert again["dict"]["*"].shape == (1, 2)
    assert not again["dict"]["*"].requires_grad


def test_what_would_run_is_named_and_does_not_run(tmp_path):
    torch.save({"a": Runs(tmp_path / "ran")}, tmp_path / "file.pt")
    with pytest.raises(ArtifactError, match=r"file\.pt: refused: it asks for posix\.mkdir"):
        read_pickle(tmp_path / "file.pt")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "plain.pt").write_bytes(pickle.dumps(Runs(tmp_path / "ran"), protocol=protocol))
        with pytest.raises(ArtifactError, match=r"plain\.pt"):
            read_pickle(tmp_path / "plain.pt")
    assert not (tmp_path / "ran").exists()


def test_modules_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "file.pt")
    with pytest.raises(ArtifactError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        read_pickle(tmp_path / "file.pt")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04 no archive", b"\x80\x02}q\x00.", b"junk", bytes(range(256))]
)
def test_what_is_broken_is_said_in_one_line(tmp_path, content):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"file\.pt: broken, or not a file of tensors") as caught:
        read_pickle(tmp_path / "file.pt")
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_refused(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "file.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "file.pt").read_bytes()[:2000])
    with pytest.raises(ArtifactError, match=r"cut\.pt: broken"):
        read_pickle(tmp_path / "cut.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"gone\.pt: cannot be read: No such file"):
        read_pickle(tmp_path / "gone.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_with_wrong_bytes_are_read_or_refused(tmp_path, zipped):
    torch.save(
        {"a": torch.ones(3), 768: [{"b": torch.zeros(2)}]}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped
    )
    whole = (tmp_path / "a.pt").read_bytes()
    random = torch.Generator().manual_seed(0)
    for _ in range(150):
        place, value = (int(torch.randint(top, (), generator=random)) for top in (min(len(whole), 700), 256))
        (tmp_path / "b.pt").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        with contextlib.suppress(ArtifactError):
            read_pickle(tmp_path / "b.pt")
