"""BitFit's files as changes of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inlay.artifacts import bitfit_file
from inlay.artifacts.blueprint import Blueprint, layer_shapes
from inlay.artifacts.layers import Difference, Updates
from inlay.errors import ArtifactError
from inlay.files import read_tensors, write_tensors
from inlay.methods import BitFit
from tests.contracts.bases import another, perturb, tiny


def saved(path: Path, method: BitFit) -> Path:
    attachment = method.attach(tiny())
    perturb(attachment)
    return write_tensors(path, attachment.state(), {"inlay.method": method.model_dump_json(), "inlay.steps": "3"})


@pytest.mark.parametrize("method", [BitFit(), BitFit(scope="all", norms=True)])
def test_there_and_back_is_exact(tmp_path: Path, method: BitFit):
    path = saved(tmp_path / "a.safetensors", method)
    blueprints = [Blueprint("tiny", layer_shapes(tiny()))]
    assert bitfit_file.recognises(path)
    updates = bitfit_file.read(path, blueprints)
    assert all(isinstance(update, Difference) and update.bias is not None for update in updates.layers.values())
    again = bitfit_file.write(tmp_path / "b.safetensors", updates, blueprints)
    (tensors, header), (others, other_header) = read_tensors(path), read_tensors(again)
    assert header == other_header
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_what_is_not_bitfits_is_refused(tmp_path: Path):
    blueprints = [Blueprint("tiny", layer_shapes(tiny()))]
    path = saved(tmp_path / "a.safetensors", BitFit(scope="all", norms=True))
    with pytest.raises(ArtifactError, match="does not fit other"):
        bitfit_file.read(path, [Blueprint("other", layer_shapes(another()))])
    tensors, header = read_tensors(path)
    write_tensors(tmp_path / "b.safetensors", {**tensors, "unet.x.lora_A": torch.zeros(1)}, header)
    with pytest.raises(ArtifactError, match=r"not a BitFit file of inlay: unet\.x\.lora_A"):
        bitfit_file.read(tmp_path / "b.safetensors", blueprints)
    write_tensors(tmp_path / "c.safetensors", tensors, {})
    assert not bitfit_file.recognises(tmp_path / "c.safetensors")
    assert not bitfit_file.recognises(tmp_path)
    matrix = Updates({"unet.a": Difference(weight=torch.zeros(2, 2))}, header)
    with pytest.raises(ArtifactError, match=r"holds changes of biases and norms.*unet\.a is a full difference"):
        bitfit_file.write(tmp_path / "d.safetensors", matrix, blueprints)
    with pytest.raises(ArtifactError, match="these come from elsewhere"):
        bitfit_file.write(tmp_path / "d.safetensors", Updates({"unet.a": Difference(bias=torch.zeros(2))}), blueprints)
