"""Names of Stable Diffusion XL's layers against diffusers' own conversion of kohya's files."""

import copy

import pytest
import torch

from inlay.artifacts.kohya_names import kohya_names, layers_by_name
from inlay.base.locate import BUILT_IN
from inlay.run.blueprints import family


@pytest.mark.parametrize("name", BUILT_IN)
def test_names_of_the_full_architectures_lead_back_to_one_layer(name):
    blueprint = family(name)
    names = kohya_names(blueprint)
    assert len(names) > 450
    assert len(set(names.values())) == len(names)
    back = layers_by_name(blueprint)
    assert [back[kohya] for kohya in names.values()] == list(names)
    # Nothing that two parts share: a prefix tells them apart.
    assert {kohya.split("_")[1] for kohya in names.values()} == (
        {"unet", "te1", "te2"} if blueprint.xl else {"unet", "te"}
    )


def test_xl_has_the_published_layers():
    names = set(kohya_names(family("sdxl")).values())
    assert "lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_0_proj" in names
    assert "lora_unet_output_blocks_0_1_transformer_blocks_9_attn2_to_v" in names
    assert "lora_unet_output_blocks_5_1_transformer_blocks_1_attn1_to_out_0" in names
    assert "lora_te2_text_model_encoder_layers_31_mlp_fc2" in names
    assert "lora_unet_label_emb_0_2" in names
    assert not [name for name in names if "down_blocks" in name or "resnets" in name]
    unet = [shape for name, shape in family("sdxl").shapes.items() if name.startswith("unet.")]
    # Weights of 2,567,463,684 published parameters; the rest are biases.
    assert 2_560_000_000 < sum(torch.Size(shape).numel() for shape in unet) < 2_567_463_684


def test_the_full_xl_is_what_diffusers_takes_the_names_for():
    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_lora_to_diffusers,
        _maybe_map_sgm_blocks_to_diffusers,
    )

    class Config:
        layers_per_block = 2

    blueprint = family("sdxl")
    layers = [name for name, shape in blueprint.shapes.items() if name.startswith("unet.") and len(shape) > 1]
    names, state = kohya_names(blueprint), {}
    for number, layer in enumerate(layers):
        kohya = names[layer]
        state[f"{kohya}.lora_down.weight"] = torch.tensor([number])
        state[f"{kohya}.lora_up.weight"] = torch.tensor([number])
    mapped = _maybe_map_sgm_blocks_to_diffusers(copy.copy(state), Config)
    converted, _ = _convert_non_diffusers_lora_to_diffusers(mapped)
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    found = {}
    for name, value in convert_unet_state_dict_to_peft(converted).items():
        if ".lora_A" in name:
            found[name.replace(".processor.", ".").split(".lora_A")[0]] = int(value)
    assert {name: layers[number] for name, number in found.items()} == {name: name for name in layers}
