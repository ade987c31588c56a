import json
import os
import stat

import numpy as np
import pytest
import torch

from inlay.errors import ArtifactError
from inlay.files import (
    bytes_of,
    read_arrays,
    read_tensors,
    write_arrays,
    write_atomically,
    write_json,
    write_tensors,
    write_text,
)


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {"a": torch.randn(2, 3).T, "b": torch.arange(3, dtype=torch.int64)}
    path = write_tensors(tmp_path / "deep" / "file.safetensors", tensors, {"key": "wört"})
    again, metadata = read_tensors(path)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert metadata == {"format": "pt", "key": "wört"}


def test_arrays_come_back_also_those_that_lie_otherwise_in_memory(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.arange(12, dtype=np.int64)[::3]}
    again, metadata = read_arrays(write_arrays(tmp_path / "file.safetensors", arrays, {"key": "value"}))
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    assert metadata == {"key": "value"}


def test_files_have_the_rights_that_the_user_s_mask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        path = write_tensors(tmp_path / "file.safetensors", {"a": torch.zeros(1)}, {})
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "file.txt", "old")

    def half(place):
        place.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_a_full_disk_is_one_message_with_the_place(tmp_path):
    def full(place):
        raise OSError(28, os.strerror(28))

    with pytest.raises(ArtifactError, match=r"result\.bin: cannot be written: No space left on device"):
        write_atomically(tmp_path / "result.bin", full)


def test_a_file_in_the_way_of_a_folder_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"x\.json: cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})


def test_json_has_no_infinities(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
    assert json.loads(write_json(tmp_path / "x.json", {"loss": None}).read_text()) == {"loss": None}


def test_what_is_no_tensor_file_is_refused_by_name(tmp_path):
    with pytest.raises(ArtifactError, match=r"gone.safetensors: no such file"):
        read_tensors(tmp_path / "gone.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 3)
    with pytest.raises(ArtifactError, match=r"broken.safetensors: not a safetensors file"):
        read_tensors(tmp_path / "broken.safetensors")


def test_bytes_are_those_of_a_file_or_of_all_in_a_folder(tmp_path):
    write_text(tmp_path / "a" / "one.txt", "123")
    write_text(tmp_path / "a" / "b" / "two.txt", "4567")
    assert bytes_of(tmp_path / "a" / "one.txt") == 3
    assert bytes_of(tmp_path / "a") == 7
