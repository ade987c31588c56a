import pytest
import torch

from inlay.errors import ArtifactError
from inlay.train.profiles import Profile
from inlay.train.snapshots import combine, drop_later, interval, read_profiles, snapshots, take_snapshot


def averages(value):
    return {0.05: {"a.weight": torch.full((3,), value)}, 0.1: {"a.weight": torch.full((3,), 10 * value)}}


@pytest.mark.parametrize(("total", "count", "distance"), [(100, 10, 10), (100, 16, 7), (5, 16, 1)])
def test_a_known_length_is_cut_evenly(total, count, distance):
    assert interval(1, total, count) == interval(total, total, count) == distance


def test_of_an_unknown_length_at_most_so_many_stay(tmp_path):
    for step in range(1, 101):
        distance = interval(step, None, 6)
        if step % distance == 0:
            take_snapshot(tmp_path, step, distance, averages(float(step)))
        assert len(snapshots(tmp_path)) <= 6
    assert list(snapshots(tmp_path)) == [16, 32, 48, 64, 80, 96]


def test_stored_averages_are_read_and_summed(tmp_path):
    take_snapshot(tmp_path, 10, 10, averages(1.0))
    take_snapshot(tmp_path, 20, 10, averages(2.0))
    sources = read_profiles(snapshots(tmp_path))
    assert list(sources) == [Profile(0.05, 10), Profile(0.1, 10), Profile(0.05, 20), Profile(0.1, 20)]
    torch.testing.assert_close(combine(sources, [1, 0.5, 0, -0.25], "a.weight"), torch.full((3,), 1.0))


def test_what_a_killed_run_stored_too_much_goes(tmp_path):
    for step in (10, 20, 30):
        take_snapshot(tmp_path, step, 10, averages(1.0))
    drop_later(tmp_path, 20)
    assert list(snapshots(tmp_path)) == [10, 20]


def test_a_broken_snapshot_is_named(tmp_path):
    path = take_snapshot(tmp_path, 10, 10, averages(1.0))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match=r"step-00000010\.safetensors: not a snapshot"):
        read_profiles(snapshots(tmp_path))


def test_a_parameter_that_was_not_stored_is_named(tmp_path):
    take_snapshot(tmp_path, 10, 10, averages(1.0))
    with pytest.raises(ArtifactError, match=r"b\.weight"):
        combine(read_profiles(snapshots(tmp_path)), [1, 0], "b.weight")
