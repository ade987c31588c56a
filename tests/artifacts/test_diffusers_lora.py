import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from inlay.artifacts.diffusers_lora import read, recognises, write
from inlay.artifacts.formats import recognise
from inlay.artifacts.layers import Updates
from inlay.errors import ArtifactError
from inlay.files import read_tensors
from tests.artifacts.specimens import LAYERS, TEXT_LAYERS, hadamard, low_rank, same, tiny_blueprint

TINY = tiny_blueprint()
ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def loras(names=(*LAYERS, *TEXT_LAYERS), **facts):
    return {name: low_rank(TINY.shapes[name], seed=number, **facts) for number, name in enumerate(names)}


@pytest.mark.parametrize("dora", ["", "out"])
@pytest.mark.parametrize("rslora", [False, True])
def test_any_lora_comes_back_bit_for_bit(tmp_path, dora, rslora):
    layers = {
        name: low_rank(TINY.shapes[name], rank=1 + number % 3, dora=dora, alpha=[0.1, 4.0][number % 2], rslora=rslora)
        for number, name in enumerate((*LAYERS, *TEXT_LAYERS))
    }
    path = write(tmp_path / "file.safetensors", Updates(layers, {"ss_seed": "3"}), [TINY])
    assert recognise(path) == "diffusers"
    again = read(path, [TINY])
    same(again.layers, layers)
    assert again.metadata["ss_seed"] == "3"
    same(read(write(tmp_path / "second.safetensors", again, [TINY]), [TINY]).layers, layers)


def test_names_and_header_are_those_of_diffusers(tmp_path):
    path = write(tmp_path / "file.safetensors", Updates(loras(alpha=6.0)), [TINY])
    tensors, header = read_tensors(path)
    assert f"{LAYERS[0]}.lora_A.weight" in tensors
    settings = json.loads(header["lora_adapter_metadata"])
    assert settings["unet.r"] == 3
    assert settings["unet.lora_alpha"] == 6
    assert settings["unet.rank_pattern"] == {}
    assert LAYERS[0].removeprefix("unet.") in settings["unet.target_modules"]


def old(layers, rename):
    return {
        rename(name, kind): value
        for name, one in layers.items()
        for kind, value in (("down", one.down), ("up", one.up))
    }


@pytest.mark.parametrize(
    "rename",
    [
        lambda name, kind: f"{name}.lora.{kind}.weight",
        lambda name, kind: f"{name}.lora_linear_layer.{kind}.weight",
        lambda name, kind: f"{name.rpartition('.')[0]}.processor.{name.rpartition('.')[2]}_lora.{kind}.weight",
        lambda name, kind: (
            f"{name.rpartition('.')[0]}.processor.{name.rpartition('.')[2]}_lora.{kind}.weight".removeprefix("unet.")
        ),
    ],
    ids=["lora.down", "lora_linear_layer.down", "processor", "no unet"],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_older_layouts_are_read(tmp_path, rename, suffix):
    layers = loras([f"{ATTENTION}.{name}" for name in ("to_q", "to_k", "to_v")])
    tensors = old(layers, rename)
    path = tmp_path / f"file{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    assert recognise(path) == "diffusers"
    same(read(path, [TINY]).layers, layers)


def test_the_oldest_projections_are_those_of_today(tmp_path):
    layers = loras([f"{ATTENTION}.to_out.0", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"])
    tensors = {
        f"{ATTENTION}.processor.to_out_lora.down.weight": layers[f"{ATTENTION}.to_out.0"].down,
        f"{ATTENTION}.processor.to_out_lora.up.weight": layers[f"{ATTENTION}.to_out.0"].up,
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight": layers[TEXT_LAYERS[0]].down,
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight": layers[TEXT_LAYERS[0]].up,
    }
    path = tmp_path / "file.safetensors"
    save_file(tensors, path)
    same(read(path, [TINY]).layers, layers)


def test_alpha_as_a_tensor_and_without(tmp_path):
    layers = loras([LAYERS[0]])
    tensors = old(layers, lambda name, kind: f"{name}.lora.{kind}.weight")
    path = tmp_path / "file.safetensors"
    save_file({**tensors, f"{LAYERS[0]}.alpha": torch.tensor(6.0)}, path)
    assert read(path, [TINY]).layers[LAYERS[0]].scale == 2.0
    save_file(tensors, path)
    assert read(path, [TINY]).layers[LAYERS[0]].scale == 1.0


def test_what_diffusers_itself_saves_is_read(tmp_path):
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from tests.tiny import make_tiny_components

    unet = make_tiny_components()["unet"]
    config = LoraConfig(r=2, lora_alpha=7, target_modules=["to_q"], use_rslora=True, rank_pattern={"attn1.to_q": 3})
    unet.add_adapter(config)
    state = get_peft_model_state_dict(unet)
    header = {key: list(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=header, weight_name="file.safetensors"
    )
    layers = read(tmp_path / "file.safetensors", [TINY]).layers
    assert len(layers) == len(state) / 2
    assert layers[f"{ATTENTION}.to_q"].scale == 7 / 3**0.5
    assert layers[f"{ATTENTION.replace('attn1', 'attn2')}.to_q"].scale == 7 / 2**0.5


def test_unknown_tensors_are_refused_by_name(tmp_path):
    tensors = load_file(write(tmp_path / "good.safetensors", Updates(loras()), [TINY]))
    path = tmp_path / "bad.safetensors"
    for name in ("unet.conv_in.lora_B.bias", "transformer.blocks.0.lora_A.weight", "unet.conv_in.weight"):
        save_file({**tensors, name: torch.zeros(2, 2)}, path)
        assert recognises(path)
        with pytest.raises(ArtifactError, match=rf"not tensors of a diffusers LoRA: {name}"):
            read(path, [TINY])
    save_file({name: value for name, value in tensors.items() if "conv_in.lora_B" not in name}, path)
    with pytest.raises(ArtifactError, match=r"unet.conv_in: lora_down.weight do not make a whole LoRA"):
        read(path, [TINY])
    save_file({name.replace("conv_in", "conv_inn"): value for name, value in tensors.items()}, path)
    with pytest.raises(ArtifactError, match=r"does not fit tiny: there is no layer unet.conv_inn"):
        read(path, [TINY])


def test_a_header_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "file.safetensors"
    save_file(
        load_file(write(tmp_path / "good.safetensors", Updates(loras()), [TINY])),
        path,
        {"lora_adapter_metadata": "{r: 3"},
    )
    with pytest.raises(ArtifactError, match=r"lora_adapter_metadata in the header is not JSON"):
        read(path, [TINY])


def test_what_the_format_cannot_hold_is_refused_with_the_layer(tmp_path):
    path = tmp_path / "file.safetensors"
    name, conv = LAYERS[0], LAYERS[5]
    for layer, update, message in [
        (name, hadamard(TINY.shapes[name]), "attn1.to_q is a LoHa"),
        (
            name,
            low_rank(TINY.shapes[name], dora="in"),
            r"cannot hold this: [^;]*attn1.to_q has a DoRA magnitude for each input",
        ),
        (conv, low_rank(TINY.shapes[conv], core=True), r"conv1 is a convolution's LoRA with a core"),
    ]:
        with pytest.raises(ArtifactError, match=message):
            write(path, Updates({**loras(names=LAYERS[1:5]), layer: update}), [TINY])
    some = loras()
    some[name] = replace(some[name], magnitude=low_rank(TINY.shapes[name], dora="out").magnitude)
    with pytest.raises(
        ArtifactError, match=r"attn2.to_k has no DoRA magnitudes while other layers of the same part have"
    ):
        write(path, Updates(some), [TINY])
    assert not path.exists()
