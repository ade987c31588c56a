"""Embeddings: every layout read and written exactly, and read by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inlay.artifacts.embeddings import Embeddings, Layout, is_embedding, read_embeddings, write_embeddings
from inlay.errors import ArtifactError

VECTORS = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
WIDE = torch.randn(3, 12, generator=torch.Generator().manual_seed(1))


def the_word(found: Embeddings) -> tuple[str, dict[str, Tensor]]:
    [(word, vectors)] = found.words.items()
    return word, dict(vectors)


@pytest.mark.parametrize(
    ("name", "data", "layout", "word"),
    [
        ("rex.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "sks"}, "a1111", "sks"),
        ("rex.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}}, "a1111", "rex"),
        ("rex.pt", {"string_to_param": nn.ParameterDict({"*": nn.Parameter(VECTORS)})}, "a1111", "rex"),
        ("rex.bin", {"<rex>": VECTORS}, "diffusers", "<rex>"),
        ("rex.pt", VECTORS, "emb_params", "rex"),
        ("rex.safetensors", {"emb_params": VECTORS}, "emb_params", "rex"),
        ("rex.safetensors", {"<sks>": VECTORS}, "diffusers", "<sks>"),
        ("rex.safetensors", {"sks.v2": VECTORS}, "diffusers", "sks.v2"),
    ],
)
def test_every_layout_of_one_encoder_is_read(tmp_path: Path, name: str, data: Any, layout: Layout, word: str):
    if name.endswith(".safetensors"):
        save_file(data, tmp_path / name)
    else:
        torch.save(data, tmp_path / name)
    found = read_embeddings(tmp_path / name)
    assert found.layout == layout
    assert the_word(found)[0] == word
    assert torch.equal(the_word(found)[1]["text_encoder"], VECTORS)


@pytest.mark.parametrize("key", ["emb_params", "<rex>"])
def test_one_vector_may_lack_its_first_axis(tmp_path: Path, key: str):
    save_file({key: VECTORS[0]}, tmp_path / "rex.safetensors")
    assert torch.equal(the_word(read_embeddings(tmp_path / "rex.safetensors"))[1]["text_encoder"], VECTORS[:1])


def test_xl_has_vectors_for_two_encoders(tmp_path: Path):
    save_file({"clip_l": VECTORS, "clip_g": WIDE}, tmp_path / "rex.safetensors")
    found = read_embeddings(tmp_path / "rex.safetensors")
    assert found.layout == "sdxl"
    word, vectors = the_word(found)
    assert word == "rex"
    assert torch.equal(vectors["text_encoder"], VECTORS)
    assert torch.equal(vectors["text_encoder_2"], WIDE)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
@pytest.mark.parametrize("layout", ["diffusers", "a1111", "emb_params"])
def test_there_and_back_is_exact(tmp_path: Path, layout: Layout, precision: torch.dtype):
    vectors = VECTORS.to(precision)
    path = tmp_path / ("any.pt" if layout == "a1111" else "any.safetensors")
    write_embeddings(path, Embeddings({"<rex>": {"text_encoder": vectors}}), layout)
    word, again = the_word(read_embeddings(path))
    assert word == "<rex>"
    assert torch.equal(again["text_encoder"], vectors)
    assert again["text_encoder"].dtype == precision


def test_xl_there_and_back_is_exact(tmp_path: Path):
    words = {"<rex>": {"text_encoder": VECTORS, "text_encoder_2": WIDE}}
    path = write_embeddings(tmp_path / "any.safetensors", Embeddings(words), "sdxl")
    word, again = the_word(read_embeddings(path))
    assert word == "<rex>"
    assert torch.equal(again["text_encoder_2"], WIDE)


def test_several_words_are_one_file_of_diffusers_layout_only(tmp_path: Path):
    words = {"<rex>": {"text_encoder": VECTORS}, "<tom>": {"text_encoder": VECTORS[:1]}}
    path = write_embeddings(tmp_path / "two.safetensors", Embeddings(words), "diffusers")
    assert list(read_embeddings(path).words) == ["<rex>", "<tom>"]
    with pytest.raises(ArtifactError, match="a1111 holds one word, but these are 2: <rex>, <tom>"):
        write_embeddings(tmp_path / "two.pt", Embeddings(words), "a1111")


def test_facts_go_into_a1111s_fields_and_come_back(tmp_path: Path):
    facts = {"inlay.steps": "40", "inlay.base": "sd-v1.5"}
    path = write_embeddings(tmp_path / "a.pt", Embeddings({"r": {"text_encoder": VECTORS}}, facts=facts), "a1111")
    assert torch.load(path, weights_only=True)["step"] == 40
    assert read_embeddings(path).facts == {"step": "40", "sd_checkpoint_name": "sd-v1.5"}


@pytest.mark.parametrize(
    ("name", "encoders", "layout", "message"),
    [
        ("a.pt", ("text_encoder", "text_encoder_2"), "a1111", "holds one text encoder's vectors, but these are for"),
        ("a.safetensors", ("text_encoder",), "sdxl", "but these are for text_encoder$"),
        ("a.pt", ("text_encoder",), "diffusers", r"layout diffusers ends in \.safetensors"),
        ("a.safetensors", ("text_encoder",), "a1111", r"layout a1111 ends in \.pt"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(
    tmp_path: Path, name: str, encoders: tuple[str, ...], layout: Layout, message: str
):
    words = {"<rex>": dict.fromkeys(encoders, VECTORS)}
    with pytest.raises(ArtifactError, match=message):
        write_embeddings(tmp_path / name, Embeddings(words), layout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"string_to_param": {"*": VECTORS, "+": VECTORS}}, "string_to_param holds 2 words"),
        ({"string_to_param": {"*": "x"}}, "vectors are str"),
        ({"string_to_param": {"*": torch.zeros(1, 2, 3)}}, r"vectors are \(1, 2, 3\)"),
        ({"clip_l": VECTORS, "clip_g": WIDE[:1]}, r"different numbers of vectors: \[1, 3\]"),
        ({"<a>": VECTORS, "<b>": WIDE}, "not an embedding"),
        ({"unet.conv_in.bias": VECTORS[0]}, "not an embedding"),
        ({"<a>": torch.ones(2, 2, dtype=torch.int64)}, "not an embedding"),
        ([VECTORS], "not an embedding"),
        ({}, "not an embedding"),
    ],
)
def test_what_is_no_embedding_is_refused(tmp_path: Path, data: Any, message: str):
    torch.save(data, tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match=message):
        read_embeddings(tmp_path / "a.pt")


def test_layers_are_not_taken_for_words():
    assert is_embedding({"<rex>": VECTORS})
    assert not is_embedding({"unet.768.key.linear.0.weight": VECTORS})
    assert not is_embedding({"lora_unet_x.alpha": torch.ones(1)})
    assert not is_embedding({768: ({}, {})})


@pytest.mark.parametrize("layout", ["diffusers", "a1111"])
def test_diffusers_reads_what_is_written(tmp_path: Path, tiny_base: Path, layout: Layout):
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(tiny_base)
    width = pipeline.text_encoder.config.hidden_size
    vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(2))
    name = "rex.pt" if layout == "a1111" else "rex.safetensors"
    write_embeddings(tmp_path / name, Embeddings({"<rex>": {"text_encoder": vectors}}), layout)
    pipeline.load_textual_inversion(str(tmp_path), weight_name=name)
    numbers = pipeline.tokenizer.convert_tokens_to_ids(["<rex>", "<rex>_1"])
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[numbers], vectors)


def test_inlays_own_layout_names_the_method(tmp_path: Path):
    from inlay.methods.textual_inversion import TextualInversion

    path = write_embeddings(tmp_path / "a.safetensors", Embeddings({"<rex>": {"text_encoder": VECTORS}}), "inlay")
    found = read_embeddings(path)
    assert found.layout == "inlay"
    method = TextualInversion.model_validate_json(found.facts["inlay.method"])
    assert (method.token, method.vectors) == ("<rex>", 3)
    with pytest.raises(ArtifactError, match="in small letters and without spaces, and this one is 'Rex'"):
        write_embeddings(tmp_path / "b.safetensors", Embeddings({"Rex": {"text_encoder": VECTORS}}), "inlay")
