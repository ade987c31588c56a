"""What lies at a path, from files and models as they come."""

from __future__ import annotations

import pytest
import torch

import inlay
from inlay.artifacts import a1111_hypernetwork, diffusers_lora
from inlay.artifacts.layers import Updates
from inlay.errors import ArtifactError, ConfigError
from inlay.files import write_tensors
from inlay.methods import METHODS, Adapter, BitFit, Hypernetwork
from inlay.run.inspect import inspect
from tests.artifacts.specimens import LAYERS, low_rank, tiny_blueprint
from tests.contracts.bases import perturb, tiny
from tests.tiny import make_tiny_checkpoint, make_tiny_pipeline

TINY = tiny_blueprint()


def own_file(path, method):
    attachment = method.attach(tiny())
    perturb(attachment)
    header = {**attachment.metadata(), "inlay.method": method.model_dump_json()}
    return write_tensors(path, attachment.state(), header)


def test_a_run_s_file_is_known_by_its_header_and_its_base(tiny_base, photos, tmp_path):
    run = tmp_path / "run"
    inlay.tune(
        base=tiny_base,
        data={"source": photos, "prompt": "a photo of sks dog"},
        method={"name": "lora", "rank": 2},
        train={"steps": 1, "batch_size": 2, "trackers": []},
        preview={"pictures": 1, "steps": 1},
        output=run,
    )
    for base in (None, str(tiny_base)):
        [found] = inspect(run, base)
        assert (found.format, found.method) == ("inlay", "LoRA")
        assert found.path == run / "pytorch_lora_weights.safetensors"
        assert found.bytes == found.path.stat().st_size
        assert found.stated_base == str(tiny_base)
        assert found.facts["inlay.trigger"] == "a photo of sks dog"
        assert {one.rank for one in found.strengths} == {2}
        assert all((one.relative is None) == (base is None) for one in found.strengths)


def test_biases_are_held_against_the_base(tiny_base, tmp_path):
    path = own_file(tmp_path / "a.safetensors", BitFit())
    [found] = inspect(path, str(tiny_base))
    assert (found.format, found.method) == ("inlay-bitfit", "full difference")
    assert all(one.relative for one in found.strengths)


def test_a_foreign_hypernetwork(tmp_path):
    method = Hypernetwork(widths=(32,))
    attachment = method.attach(tiny())
    header = {**attachment.metadata(), "inlay.method": method.model_dump_json(), "inlay.steps": "5"}
    file = a1111_hypernetwork.from_inlay(attachment.state(), header, "own")
    [found] = inspect(a1111_hypernetwork.write_a1111(tmp_path / "rex.pt", file))
    assert (found.format, found.method) == ("a1111-hypernetwork", "hypernetwork")
    assert (found.facts["name"], found.facts["step"]) == ("rex", "5")


def test_inlays_other_methods_are_told_by_their_tensors(tmp_path):
    path = own_file(tmp_path / "a.safetensors", Adapter(width=3))
    [found] = inspect(path)
    assert (found.format, found.method, found.measure) == ("inlay", "adapter", "stored parameters")
    assert found.notes == ()
    assert found.parameters == sum(one.parameters for one in found.strengths)


def test_with_a_base_a_method_is_told_by_what_it_does_to_the_weights(tiny_base, tmp_path):
    path = own_file(tmp_path / "a.safetensors", METHODS["ia3"]())
    [found] = inspect(path)
    assert found.measure == "stored parameters"
    [held] = inspect(path, str(tiny_base))
    assert (held.method, held.measure) == ("ia3", "change of the weights")
    assert all(one.relative and one.form == "ia3" for one in held.strengths)
    assert {one.name: one.parameters for one in held.strengths} == {one.name: one.parameters for one in found.strengths}
    assert held.parameters == found.parameters


def test_a_file_for_an_unknown_model_is_told_by_its_tensors_and_why(tmp_path):
    updates = Updates({LAYERS[0]: low_rank(TINY.shapes[LAYERS[0]])})
    path = diffusers_lora.write(tmp_path / "a.safetensors", updates, [TINY])
    [found] = inspect(path)
    assert (found.format, found.method) == ("diffusers", "unknown")
    assert "does not fit Stable Diffusion" in found.notes[0]


def test_names_that_mean_nothing_here(tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", {"x.weight": torch.ones(2, 2, 2)}, {})
    [found] = inspect(path)
    assert found.format == "tensors under names"
    assert "of no format that inlay reads" in found.notes[0]


def test_models_without_and_with_a_base(tiny_base, tmp_path):
    [found] = inspect(tiny_base)
    assert (found.format, found.method) == ("diffusers pipeline", "whole model")
    assert [one.name for one in found.strengths] == ["unet", "vae", "text_encoder"]
    assert found.norm is None
    other = make_tiny_pipeline(tmp_path / "other", seed=1)
    [held] = inspect(other, str(tiny_base))
    assert held.parameters == found.parameters == sum(one.parameters for one in held.strengths)
    assert all(one.norm and one.relative for one in held.strengths)
    [same] = inspect(tiny_base, str(tiny_base))
    assert same.strengths == ()
    assert same.notes[0].startswith("0 of ")


def test_an_original_checkpoint_is_told_by_its_header(tmp_path):
    path = make_tiny_checkpoint(tmp_path)
    [found] = inspect(path)
    assert found.format == "original checkpoint"
    assert {one.name for one in found.strengths} == {"unet", "vae", "text_encoder"}


def test_what_is_not_there_or_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="gone: no such file or directory"):
        inspect(tmp_path / "gone")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        inspect(tmp_path / "text.txt")
