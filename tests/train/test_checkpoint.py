import pytest
import torch

from inlay.errors import ArtifactError
from inlay.train import checkpoint
from inlay.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint


def save(directory, step, keep=2):
    return save_checkpoint(
        directory, step, {"w": torch.full((2,), float(step))}, {"optimizer": {"t": step}}, {"seconds": 1.5}, keep
    )


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_everything_comes_back(tmp_path):
    tensors, optimizer, facts = load_checkpoint(save(tmp_path, 7))
    assert torch.equal(tensors["w"], torch.tensor([7.0, 7.0]))
    assert optimizer == {"optimizer": {"t": 7}}
    assert facts == {"step": 7, "seconds": 1.5}


def test_the_latest_are_kept(tmp_path):
    for step in (1, 9, 10, 100):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000010", "step-00000100"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    save(tmp_path, 101, keep=1)
    assert names(tmp_path) == ["step-00000101"]


def test_a_save_that_fails_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(ArtifactError, match="step-00000002: cannot be written: torch could not write it"):
        save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001"]
    assert load_checkpoint(tmp_path / "step-00000001")[2]["step"] == 1


def test_what_a_killed_save_left_is_no_checkpoint_and_goes_with_the_next(tmp_path):
    left = tmp_path / ".step-00000002.4711"
    left.mkdir()
    (left / "trained.safetensors").write_bytes(b"half")
    (tmp_path / "step-00000003").write_text("a file")
    assert checkpoints(tmp_path) == []
    (tmp_path / "step-00000003").unlink()
    save(tmp_path, 3)
    assert names(tmp_path) == ["step-00000003"]


def test_the_same_step_may_be_saved_again(tmp_path):
    save(tmp_path, 1)
    assert load_checkpoint(save(tmp_path, 1))[2]["step"] == 1


@pytest.mark.parametrize("file", ["trained.safetensors", "optimizer.pt", "facts.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, file, damage):
    path = save(tmp_path, 1)
    content = (path / file).read_bytes()
    (path / file).unlink()
    if damage == "cut":
        (path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=r"step-00000001: not a readable checkpoint.*remove it to go on from"):
        load_checkpoint(path)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    path = save(tmp_path, 1)
    torch.save({"optimizer": Evil()}, path / "optimizer.pt")
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        load_checkpoint(path)
