"""Merging and extracting files as they come, read back by inlay and by diffusers."""

from __future__ import annotations

import json

import pytest
import torch

from inlay.artifacts import diffusers_lora, inlay_file, kohya
from inlay.artifacts.layers import Updates
from inlay.errors import ArtifactError, ConfigError
from inlay.files import read_tensors, write_tensors
from inlay.methods import BitFit, Hypernetwork, Method
from inlay.run.extract import extract_to_file
from inlay.run.merge import as_differences, merge_to_lora, merge_to_model
from inlay.run.weights import load_whole, weighted_layers
from tests.artifacts.specimens import LAYERS, TEXT_LAYERS, changed_copy, hadamard, low_rank, tiny_blueprint
from tests.contracts.bases import perturb, tiny

TINY = tiny_blueprint()
NAMES = (*LAYERS[:3], LAYERS[5], *TEXT_LAYERS[:2])


@pytest.fixture
def two(tmp_path):
    """Two LoRA of some common layers, in files of two programs."""
    one = Updates({name: low_rank(TINY.shapes[name], 2, seed=i, alpha=1.0) for i, name in enumerate(NAMES)})
    other = Updates({name: low_rank(TINY.shapes[name], 3, seed=50 + i) for i, name in enumerate(NAMES[1:])})
    first = diffusers_lora.write(tmp_path / "one.safetensors", one, [TINY])
    second = kohya.write_kohya(tmp_path / "two.safetensors", other, [TINY])
    return (first, second), (one, other)


def explicit(pair, strengths, name):
    return sum(
        (
            s * one.layers[name].delta(TINY.shapes[name])
            for s, one in zip(strengths, pair, strict=True)
            if name in one.layers
        ),
        torch.zeros(TINY.shapes[name]),
    )


def saved(path, method: Method):
    attachment = method.attach(tiny())
    perturb(attachment)
    header = {**attachment.metadata(), "inlay.method": method.model_dump_json()}
    return write_tensors(path, attachment.state(), header), attachment


def test_diffusers_applies_the_merged_lora_as_the_files_together(two, tiny_base, tmp_path):
    from diffusers import StableDiffusionPipeline

    files, pair = two
    output = tmp_path / "out" / "merged.safetensors"
    sources, merged = merge_to_lora(files, [0.7, -0.5], output, base=str(tiny_base))
    assert merged.relative_error == 0
    header = read_tensors(output)[1]
    assert json.loads(header["inlay.merged_from"]) == [
        {"file": "one.safetensors", "weight": 0.7},
        {"file": "two.safetensors", "weight": -0.5},
    ]
    assert [source.strength for source in sources] == [0.7, -0.5]

    pipelines = [StableDiffusionPipeline.from_pretrained(tiny_base) for _ in range(2)]
    before, after = ({part: getattr(p, part) for part in ("unet", "text_encoder")} for p in pipelines)
    pipelines[1].load_lora_weights(str(output.parent), weight_name=output.name)
    pipelines[1].fuse_lora()
    pipelines[1].unload_lora_weights()
    layers, originals = weighted_layers(after), weighted_layers(before)
    for name in originals:
        wanted = originals[name].weight + (explicit(pair, [0.7, -0.5], name) if name in NAMES else 0)
        torch.testing.assert_close(layers[name].weight, wanted, atol=1e-5, rtol=1e-5)


def test_a_rank_truncates_and_other_formats_are_written(two, tiny_base, tmp_path):
    files, pair = two
    output = tmp_path / "merged.safetensors"
    _, merged = merge_to_lora(files, [1.0, 1.0], output, rank=2, base=str(tiny_base), format_name="inlay")
    assert 0 < merged.relative_error < 1
    read = inlay_file.read(output, [TINY])
    for name in NAMES:
        assert read.layers[name].rank == 2
        lost = (explicit(pair, [1.0, 1.0], name) - read.layers[name].delta(TINY.shapes[name])).norm()
        assert merged.products[name].error == pytest.approx(float(lost), abs=1e-4)


def test_a_merged_model_is_read_by_diffusers(two, tiny_base, tmp_path):
    from diffusers import StableDiffusionPipeline

    files, pair = two
    bias, attachment = saved(tmp_path / "bias.safetensors", BitFit(norms=True))
    _, folded = merge_to_model([*files, bias], [0.7, -0.5, 2.0], str(tiny_base), tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    found = weighted_layers({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})
    original = weighted_layers(load_whole(tiny_base).components)
    changes = attachment.state()
    for name, layer in original.items():
        wanted = layer.weight + 2 * changes.get(f"{name}.weight", 0)
        wanted = wanted + (explicit(pair, [0.7, -0.5], name) if name in NAMES else 0)
        torch.testing.assert_close(found[name].weight, wanted, atol=1e-5, rtol=1e-5)
        if f"{name}.bias" in changes:
            torch.testing.assert_close(found[name].bias, layer.bias + 2 * changes[f"{name}.bias"])
    assert folded.layers == len({*NAMES, *(name.rpartition(".")[0] for name in changes)})
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_methods_without_a_format_of_their_own_join_by_what_they_change(tiny_base, tmp_path):
    from inlay.methods import METHODS

    method = METHODS["lora"](rank=2)
    assert method.merges
    path, _ = saved(tmp_path / "x.safetensors", method)
    found = as_differences(path, load_whole(tiny_base))
    wanted = inlay_file.read(path, [TINY]).layers
    assert found.layers.keys() == wanted.keys()
    for name, update in found.layers.items():
        shape = TINY.shapes[name]
        torch.testing.assert_close(update.delta(shape), wanted[name].delta(shape), atol=1e-5, rtol=1e-4)


def test_extraction_gives_back_what_was_merged(two, tiny_base, tmp_path):
    files, pair = two
    merge_to_model(files, [1.0, 1.0], str(tiny_base), tmp_path / "model")
    output = tmp_path / "lora.safetensors"
    found = extract_to_file(str(tmp_path / "model"), str(tiny_base), output, rank=5)
    assert found.relative_error < 1e-5
    read = diffusers_lora.read(output, [TINY])
    assert set(read.layers) == set(NAMES)
    for name in NAMES:
        delta = read.layers[name].delta(TINY.shapes[name])
        torch.testing.assert_close(delta, explicit(pair, [1.0, 1.0], name), atol=1e-5, rtol=1e-4)
    assert read.metadata["inlay.base"] == str(tiny_base)
    with pytest.raises(ConfigError, match=r"lora\.safetensors: exists already"):
        extract_to_file(str(tmp_path / "model"), str(tiny_base), output, rank=5)
    changed = changed_copy({p: load_whole(tiny_base).components[p] for p in ("unet", "text_encoder")}, read.layers)
    again = weighted_layers(load_whole(tmp_path / "model").components)
    for name, layer in weighted_layers(changed).items():
        torch.testing.assert_close(layer.weight, again[name].weight, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_merged_is_refused_and_nothing_is_written(two, tiny_base, tmp_path):
    files, _ = two
    base, output = str(tiny_base), tmp_path / "new.safetensors"
    with pytest.raises(ConfigError, match="--weights gives 1 numbers for 2 files"):
        merge_to_lora(files, [1.0], output, base=base)
    with pytest.raises(ConfigError, match="--weights: nan is no finite number"):
        merge_to_lora(files, [1.0, float("nan")], output, base=base)
    with pytest.raises(ConfigError, match="--format a1111-embedding: allowed here: inlay, diffusers, kohya, lycoris"):
        merge_to_lora(files, [1.0, 1.0], output, base=base, format_name="a1111-embedding")
    with pytest.raises(ConfigError, match=r"one\.safetensors: exists already"):
        merge_to_lora(files, [1.0, 1.0], files[0], base=base)
    with pytest.raises(ConfigError, match="exists already"):
        merge_to_model(files, [1.0, 1.0], base, tmp_path)
    networks, _ = saved(tmp_path / "networks.safetensors", Hypernetwork())
    with pytest.raises(ArtifactError, match=r"networks\.safetensors: hypernetwork cannot be folded into weights"):
        merge_to_model([networks], [1.0], base, tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"one\.safetensors: does not fit"):
        merge_to_lora(files, [1.0, 1.0], output)
    assert not output.exists()
    assert not (tmp_path / "model").exists()


def test_loha_joins_where_a_rank_is_given(two, tiny_base, tmp_path):
    files, pair = two
    loha = Updates({NAMES[0]: hadamard(TINY.shapes[NAMES[0]], alpha=1.0)})
    path = kohya.write_lycoris(tmp_path / "loha.safetensors", loha, [TINY])
    output = tmp_path / "merged.safetensors"
    with pytest.raises(ArtifactError, match=r"is a LoHa, which no LoRA of small rank stands for exactly"):
        merge_to_lora([files[0], path], [1.0, 1.0], output, base=str(tiny_base))
    _, merged = merge_to_lora([files[0], path], [1.0, 0.5], output, rank=32, base=str(tiny_base))
    assert merged.relative_error < 1e-5
    shape = TINY.shapes[NAMES[0]]
    wanted = pair[0].layers[NAMES[0]].delta(shape) + 0.5 * loha.layers[NAMES[0]].delta(shape)
    found = diffusers_lora.read(output, [TINY]).layers[NAMES[0]].delta(shape)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
