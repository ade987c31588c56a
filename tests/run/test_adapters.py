import json

import pytest
import torch
from safetensors.torch import load_file

from inlay.artifacts.formats import FORMATS
from inlay.artifacts.layers import Updates
from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError, ConfigError
from inlay.files import write_tensors
from inlay.methods import Lora, Prefix
from inlay.run.adapters import load_adapted, stored_method
from tests.artifacts.specimens import LAYERS, changed_copy, difference, low_rank, random_tensor, tiny_blueprint

TINY = tiny_blueprint()


def answer(base):
    random = torch.Generator().manual_seed(5)
    noisy, states = torch.randn(1, 4, 8, 8, generator=random), torch.randn(1, 7, 32, generator=random)
    with torch.no_grad():
        return base.predict(noisy, torch.tensor([3]), states)


def saved(method, tiny_base, path):
    """Save a method with random parameters; return what it computes, too."""
    base = load_base(BaseSettings(model=str(tiny_base)))
    attachment = method.attach(base.components)
    for number, parameter in enumerate(attachment.parameters().values()):
        parameter.data += random_tensor(parameter.shape, number)
    header = {**attachment.metadata(), "inlay.method": method.model_dump_json()}
    return write_tensors(path, attachment.state(), header), answer(base)


@pytest.mark.parametrize("method", [Lora(rank=2, dora=True), Prefix(length=3)], ids=["lora", "prefix"])
def test_a_file_of_inlay_s_is_attached_and_computes_the_same_bits(tiny_base, tmp_path, method):
    path, expected = saved(method, tiny_base, tmp_path / "file.safetensors")
    assert torch.equal(answer(load_adapted(tiny_base, [path])), expected)
    assert stored_method(path) == method


def test_foreign_files_are_folded_in_with_their_strengths(tiny_base, tmp_path):
    first = {LAYERS[0]: low_rank(TINY.shapes[LAYERS[0]]), LAYERS[5]: difference(TINY.shapes[LAYERS[5]])}
    second = {LAYERS[1]: low_rank(TINY.shapes[LAYERS[1]], alpha=9.0)}
    one = FORMATS["lycoris"].write(tmp_path / "one.safetensors", Updates(first), [TINY])
    other = FORMATS["peft"].write(tmp_path / "other", Updates(second), [TINY])
    base = load_base(BaseSettings(model=str(tiny_base)))
    expected = load_base(BaseSettings(model=str(tiny_base)))
    expected.components |= changed_copy(base.components, {**first, **second})
    torch.testing.assert_close(answer(load_adapted(tiny_base, [one, other])), answer(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer(load_adapted(tiny_base, [one, other], [0, 0])), answer(base))
    none = load_adapted(tiny_base, [one, one], [0.25, 0.75])
    whole = load_adapted(tiny_base, [one])
    torch.testing.assert_close(answer(none), answer(whole), rtol=1e-4, atol=1e-5)


def test_a_tuned_lora_takes_a_strength(tiny_base, tmp_path):
    path, expected = saved(Lora(rank=2), tiny_base, tmp_path / "file.safetensors")
    nothing = answer(load_base(BaseSettings(model=str(tiny_base))))
    torch.testing.assert_close(answer(load_adapted(tiny_base, [path], [0])), nothing)
    half = answer(load_adapted(tiny_base, [path], [0.5]))
    assert 0.2 < float((half - nothing).norm() / (expected - nothing).norm()) < 0.8


def test_what_cannot_be_is_refused(tiny_base, tmp_path):
    path, _ = saved(Prefix(length=3), tiny_base, tmp_path / "file.safetensors")
    with pytest.raises(ArtifactError, match="prefix cannot be folded into weights"):
        load_adapted(tiny_base, [path], [0.5])
    with pytest.raises(ConfigError, match=r"--strength: 2 given for 1 adapters"):
        load_adapted(tiny_base, [path], [0.5, 1])
    write_tensors(path, load_file(path), {"inlay.method": json.dumps({"name": "prefix", "tokens": 2})})
    with pytest.raises(ArtifactError, match=r"its inlay.method is none of this version"):
        load_adapted(tiny_base, [path])
    write_tensors(path, load_file(path), {"inlay.method": Prefix(length=4).model_dump_json()})
    with pytest.raises(ArtifactError, match=r"file.safetensors: the saved prefix does not fit here"):
        load_adapted(tiny_base, [path])
