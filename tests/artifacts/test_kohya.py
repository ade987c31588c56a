import hashlib
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from inlay.artifacts.formats import recognise
from inlay.artifacts.kohya import read, write_kohya, write_lycoris
from inlay.artifacts.kohya_names import kohya_names, layers_by_name
from inlay.artifacts.layers import Difference, Updates
from inlay.errors import ArtifactError
from inlay.files import read_tensors
from tests.artifacts.specimens import (
    LAYERS,
    TEXT_LAYERS,
    hadamard,
    kronecker,
    low_rank,
    make_tiny_xl,
    random_tensor,
    same,
    tiny_blueprint,
)

TINY = tiny_blueprint(architecture="stable-diffusion-v1", kohya_version="sd_v1")
TINY_XL = replace(tiny_blueprint(make_tiny_xl()), name="tiny XL")


def loras(blueprint=TINY, names=(*LAYERS, *TEXT_LAYERS), **facts):
    return {name: low_rank(blueprint.shapes[name], seed=number, **facts) for number, name in enumerate(names)}


def mixed():
    """Return updates of every form, as LyCORIS mixes them."""
    shape = TINY.shapes
    linear, other, _, _, point, conv, down, up, *_ = LAYERS
    return {
        linear: low_rank(shape[linear], dora="in", alpha=2.0),
        other: hadamard(shape[other], alpha=1.5),
        point: kronecker(shape[point], first=False, alpha=0.5),
        conv: low_rank(shape[conv], core=True),
        down: hadamard(shape[down], core=True, magnitude=low_rank(shape[down], dora="out").magnitude),
        up: kronecker(shape[up], second=True, alpha=7.0),
        TEXT_LAYERS[0]: kronecker(shape[TEXT_LAYERS[0]], alpha=1.0),
        "unet.conv_norm_out": Difference(weight=random_tensor((32,), 1), bias=random_tensor((32,), 2)),
        "unet.time_embedding.linear_2": Difference(bias=random_tensor((128,), 3)),
    }


@pytest.mark.parametrize("blueprint", [TINY, TINY_XL], ids=["1", "XL"])
def test_names_are_of_one_layer_each(blueprint):
    names = kohya_names(blueprint)
    assert len(set(names.values())) == len(names)
    back = layers_by_name(blueprint)
    assert all(back[name] == layer for layer, name in names.items())


def test_names_as_they_are_published():
    names = kohya_names(TINY)
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    assert names[f"{block}.attn1.to_q"] == "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert names[TEXT_LAYERS[0]] == "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    xl = kohya_names(TINY_XL)
    block = "unet.down_blocks.1.attentions.0.transformer_blocks.1"
    assert xl[f"{block}.attn2.to_out.0"] == "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0"
    assert xl["unet.up_blocks.1.upsamplers.0.conv"] == "lora_unet_output_blocks_5_2_conv"
    assert xl["unet.down_blocks.0.downsamplers.0.conv"] == "lora_unet_input_blocks_3_0_op"
    assert xl["unet.mid_block.resnets.1.conv2"] == "lora_unet_middle_block_2_out_layers_3"
    assert xl["text_encoder." + TEXT_LAYERS[0].partition(".")[2]].startswith("lora_te1_text_model_encoder_")
    assert xl["text_encoder_2.text_projection"] == "lora_te2_text_projection"


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_lora_comes_back_bit_for_bit(tmp_path_factory, data):
    blueprint = data.draw(st.sampled_from([TINY, TINY_XL]))
    matrices = [name for name, shape in blueprint.shapes.items() if len(shape) > 1 and "embeddings." not in name]
    names = data.draw(st.lists(st.sampled_from(matrices), min_size=1, max_size=8, unique=True))
    layers = {
        name: low_rank(
            blueprint.shapes[name],
            rank=data.draw(st.integers(1, 4)),
            dora=data.draw(st.sampled_from(["", "out", "in"])),
            alpha=data.draw(st.none() | st.sampled_from([1.0, 0.1, 16.0])),
        )
        for name in names
    }
    path = tmp_path_factory.mktemp("kohya") / "file.safetensors"
    write_kohya(path, Updates(layers), [blueprint])
    assert recognise(path) == "kohya"
    same(read(path, [TINY, TINY_XL]).layers, layers)


def test_every_form_comes_back_bit_for_bit(tmp_path):
    path = write_lycoris(tmp_path / "file.safetensors", Updates(mixed()), [TINY])
    assert recognise(path) == "lycoris"
    again = read(path, [TINY])
    same(again.layers, mixed())
    second = write_lycoris(tmp_path / "second.safetensors", again, [TINY])
    one, other = load_file(path), load_file(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precision_stays(tmp_path, dtype):
    full = low_rank(TINY.shapes[LAYERS[0]], alpha=4.0)
    layers = {LAYERS[0]: replace(full, down=full.down.to(dtype), up=full.up.to(dtype))}
    path = write_kohya(tmp_path / "file.safetensors", Updates(layers), [TINY])
    assert {value.dtype for value in load_file(path).values()} == {dtype}
    same(read(path, [TINY]).layers, layers)


def test_rslora_is_said_by_alpha(tmp_path):
    layers = loras(names=LAYERS[:1], rank=4, alpha=6.0, rslora=True)
    path = write_kohya(tmp_path / "file.safetensors", Updates(layers), [TINY])
    (again,) = read(path, [TINY]).layers.values()
    assert again.scale == 3.0
    assert again.alpha == 12.0


def test_what_kohya_cannot_hold_is_refused_with_the_layer(tmp_path):
    path = tmp_path / "file.safetensors"
    with pytest.raises(ArtifactError, match=r"LyCORIS' files can: .*attn2.to_k is a LoHa"):
        write_kohya(path, Updates(mixed()), [TINY])
    with pytest.raises(ArtifactError, match=r"conv1 is a LoRA with a core \(Tucker form\)"):
        write_kohya(path, Updates({LAYERS[5]: mixed()[LAYERS[5]]}), [TINY])
    whole = kronecker(TINY.shapes[LAYERS[0]], second=True, alpha=8.0, stated_rank=32)
    with pytest.raises(ArtifactError, match=r"two whole factors with a scale of 0.25; LyCORIS applies it with 1"):
        write_lycoris(path, Updates({LAYERS[0]: whole}), [TINY])
    assert not path.exists()


def test_layers_that_two_models_name_differently_need_a_base(tmp_path):
    name = "unet.up_blocks.1.resnets.0.conv_shortcut"
    shapes = {**TINY_XL.shapes, name: TINY.shapes[name]}
    other = replace(TINY_XL, shapes=shapes)
    with pytest.raises(
        ArtifactError, match=r"exist in tiny and in tiny XL, which this format names differently.*--base"
    ):
        write_kohya(tmp_path / "file.safetensors", Updates(loras(names=[name])), [TINY, other])


def test_unknown_tensors_and_layers_are_refused_by_name(tmp_path):
    tensors = load_file(write_kohya(tmp_path / "good.safetensors", Updates(loras()), [TINY]))
    path = tmp_path / "bad.safetensors"
    save_file({**tensors, "lora_unet_conv_in.oft_blocks": torch.zeros(1)}, path)
    with pytest.raises(ArtifactError, match=r"bad.safetensors: not tensors of LoRA, .*lora_unet_conv_in.oft_blocks"):
        read(path, [TINY])
    save_file({name.replace("conv_in", "conv_inn"): value for name, value in tensors.items()}, path)
    with pytest.raises(
        ArtifactError, match=r"tiny has no layers of these names \(also tried: tiny XL\): lora_unet_conv_inn"
    ):
        read(path, [TINY, TINY_XL])
    save_file({name.replace("attn2_to_k", "attn1_to_k"): value for name, value in tensors.items()}, path)
    wide = replace(TINY, shapes={**TINY.shapes, LAYERS[0].replace("to_q", "to_k"): (32, 48)})
    with pytest.raises(ArtifactError, match=r"attn1.to_k has a weight of 32 x 48, and a LoRA for 32 x 32"):
        read(path, [wide])


def test_other_spellings_are_read(tmp_path):
    tensors = load_file(write_kohya(tmp_path / "one.safetensors", Updates(loras()), [TINY]))
    path = tmp_path / "standalone.safetensors"
    renamed = {name.replace("lora_unet_", "lycoris_").replace("lora_te_", "lycoris_"): v for name, v in tensors.items()}
    save_file(renamed, path)
    assert recognise(path) == "lycoris"
    same(read(path, [TINY]).layers, loras())

    names = ["unet.down_blocks.1.attentions.0.proj_in"]
    own = load_file(write_kohya(tmp_path / "xl.safetensors", Updates(loras(TINY_XL, names)), [TINY_XL]))
    renamed = {name.replace("input_blocks_4_1", "down_blocks_1_attentions_0"): value for name, value in own.items()}
    save_file(renamed, path)
    assert renamed.keys() != own.keys()
    same(read(path, [TINY_XL]).layers, loras(TINY_XL, names))
    save_file({**own, **{name: value.clone() for name, value in renamed.items()}}, path)
    with pytest.raises(ArtifactError, match="names a layer twice"):
        read(path, [TINY_XL])


def test_the_header(tmp_path):
    said = {"inlay.base": "my/base", "inlay.trigger": "sks dog", "ss_seed": "3", "modelspec.architecture": "another"}
    path = write_kohya(tmp_path / "dog.safetensors", Updates(loras(rank=4, alpha=2.0), said), [TINY])
    header = read_tensors(path)[1]
    data = path.read_bytes()
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert header["sshs_model_hash"] == digest
    assert header["modelspec.hash_sha256"] == f"0x{digest}"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.resolution"] == "512x512"
    assert header["modelspec.trigger_phrase"] == "sks dog"
    assert header["ss_base_model_version"] == "sd_v1"
    assert header["ss_v2"] == "False"
    assert (header["ss_network_dim"], header["ss_network_alpha"], header["ss_seed"]) == ("4", "2", "3")
    assert (header["ss_output_name"], header["ss_sd_model_name"]) == ("dog", "my/base")

    path = write_lycoris(tmp_path / "mixed.safetensors", Updates(mixed()), [TINY])
    header = read_tensors(path)[1]
    assert header["ss_network_module"] == "lycoris.kohya"
    assert header["ss_network_alpha"] == "Dynamic"
    assert json.loads(header["ss_network_args"])["dora_wd"] == "True"


def test_an_architecture_is_written_only_where_it_is_the_base_s(tmp_path):
    said = {"ss_base_model_version": "sd_v1", "modelspec.architecture": "stable-diffusion-v1/lora"}
    second = replace(TINY, architecture="stable-diffusion-v2-512", kohya_version="sd_v2")
    for models in ([tiny_blueprint()], [TINY, second]):
        path = write_kohya(tmp_path / "file.safetensors", Updates(loras(), said), models)
        header = read_tensors(path)[1]
        assert not [key for key in header if key.startswith("modelspec.") or key == "ss_base_model_version"]
