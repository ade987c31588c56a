import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inlay.artifacts.formats import recognise
from inlay.artifacts.layers import Updates
from inlay.artifacts.lokr_factors import factorization
from inlay.artifacts.peft_lora import read, write
from inlay.errors import ArtifactError
from tests.artifacts.specimens import (
    LAYERS,
    TEXT_LAYERS,
    changed_copy,
    difference,
    hadamard,
    kronecker,
    low_rank,
    same,
    tiny_blueprint,
)
from tests.tiny import make_tiny_components

TINY = tiny_blueprint()
NAMES = tuple(name for name in LAYERS if name != "unet.conv_in")  # 4 input channels have fewer factors


def loras(names=(*LAYERS, *TEXT_LAYERS), **facts):
    return {name: low_rank(TINY.shapes[name], seed=number, **facts) for number, name in enumerate(names)}


def lohas(core: bool):
    return {
        name: hadamard(TINY.shapes[name], seed=number, alpha=4.0, core=core and TINY.shapes[name][2:] == (3, 3))
        for number, name in enumerate(NAMES)
    }


def lokrs(core: bool = False, factor: int = 4, rank: int = 3, **facts):
    layers = {}
    for number, name in enumerate(NAMES):
        shape = TINY.shapes[name]
        sides = factorization(shape[0], factor)[0], factorization(shape[1], factor)[0]
        large = max(shape[0] // sides[0], shape[1] // sides[1])
        layers[name] = kronecker(
            shape, sides, rank, number, second=rank >= large / 2, core=core and shape[2:] == (3, 3), **facts
        )
    return layers


def output(unet):
    random = torch.Generator().manual_seed(5)
    noisy, states = torch.randn(1, 4, 8, 8, generator=random), torch.randn(1, 7, 32, generator=random)
    with torch.no_grad():
        return unet(noisy, torch.tensor([3]), states).sample


@pytest.mark.parametrize(
    "layers",
    [
        loras(alpha=6.0),
        loras(alpha=6.0, rslora=True),
        loras(dora="out"),
        {name: low_rank(TINY.shapes[name], rank=1 + n % 3, alpha=[0.5, 4.0][n % 2]) for n, name in enumerate(LAYERS)},
        lohas(core=False),
        lohas(core=True),
        lokrs(alpha=4.0),
        lokrs(alpha=4.0, core=True),
        lokrs(alpha=4.0, rank=64, stated_rank=64),
    ],
    ids=["LoRA", "rsLoRA", "DoRA", "ranks", "LoHa", "LoHa core", "LoKr", "LoKr core", "LoKr whole"],
)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT of transformers
def test_peft_computes_the_same_and_reading_gives_the_same_bits(tmp_path, layers):
    from peft import PeftModel

    components = make_tiny_components()
    expected = changed_copy(components, layers)
    path = write(tmp_path / "adapter", Updates(layers), [TINY])
    assert recognise(path) == "peft"
    same(read(path, [TINY]).layers, layers)
    before = output(components["unet"])
    unet = PeftModel.from_pretrained(components["unet"], path / "unet")
    assert not torch.allclose(before, output(expected["unet"]), atol=1e-3)
    torch.testing.assert_close(output(unet), output(expected["unet"]), rtol=1e-4, atol=1e-5)
    if any(name.startswith("text_encoder") for name in layers):
        tokens = torch.arange(9)[None]
        text = PeftModel.from_pretrained(components["text_encoder"], path / "text_encoder")
        assert sum("lora_A" in name for name, _ in text.named_parameters()) == len(TEXT_LAYERS)
        with torch.no_grad():
            torch.testing.assert_close(text(tokens)[0], expected["text_encoder"](tokens)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        ("LoHa", {"r": 3, "alpha": 5, "use_effective_conv2d": True}),
        ("LoHa", {"r": 3, "alpha": 5}),
        ("LoKr", {"r": 3, "alpha": 5, "decompose_both": True, "decompose_factor": 8}),
        ("LoKr", {"r": 2, "alpha": 5, "use_effective_conv2d": True, "decompose_factor": 2}),
        ("LoKr", {"r": 64, "alpha": 16}),
    ],
)
def test_what_peft_has_saved_is_read_written_and_read_by_peft_again(tmp_path, settings):
    from peft import LoHaConfig, LoKrConfig, PeftModel, get_peft_model

    kind, given = settings
    targets = [name.removeprefix("unet.") for name in NAMES]
    config = {"LoHa": LoHaConfig, "LoKr": LoKrConfig}[kind](target_modules=targets, init_weights=False, **given)
    torch.manual_seed(0)
    tuned = get_peft_model(make_tiny_components()["unet"], config)
    tuned.save_pretrained(tmp_path / "theirs")
    updates = read(tmp_path / "theirs", [TINY])
    for name in NAMES:
        layer = tuned.get_submodule(f"base_model.model.{name.removeprefix('unet.')}")
        delta = updates.layers[name].delta(TINY.shapes[name])
        torch.testing.assert_close(delta, layer.get_delta_weight("default").detach(), rtol=1e-4, atol=1e-6)
    ours = write(tmp_path / "ours", updates, [TINY])
    same(read(ours, [TINY]).layers, updates.layers)
    again = PeftModel.from_pretrained(make_tiny_components()["unet"], ours / "unet")
    torch.testing.assert_close(output(again), output(tuned.eval()), rtol=1e-4, atol=1e-5)


def test_a_directory_of_pytorch_s_own_files(tmp_path):
    write(tmp_path, Updates(loras(LAYERS[:2])), [TINY])
    from safetensors.torch import load_file

    weights = tmp_path / "unet" / "adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_name("adapter_model.bin"))
    weights.unlink()
    same(read(tmp_path, [TINY]).layers, loras(LAYERS[:2]))
    assert recognise(tmp_path / "unet") == "peft"
    (tmp_path / "unet").rename(tmp_path / "any name")
    same(read(tmp_path / "any name", [TINY]).layers, loras(LAYERS[:2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "VERA"}, r"peft_type is 'VERA'; allowed: LORA, LOHA, LOKR"),
        ({"peft_type": "LOHA"}, r"holds a LoRA, and adapter_config.json says LOHA"),
        ({"fan_in_fan_out": True}, r"fan_in_fan_out: not supported"),
        ({"bias": "all", "lora_bias": True}, r"lora_bias, bias: not supported"),
    ],
)
def test_other_kinds_are_refused(tmp_path, change, message):
    write(tmp_path, Updates(loras(LAYERS[:2])), [TINY])
    config = tmp_path / "unet" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ArtifactError, match=message):
        read(tmp_path, [TINY])


def test_what_peft_cannot_hold_is_refused_with_the_layer(tmp_path):
    shape = TINY.shapes[LAYERS[0]]
    for layers, message in [
        ({LAYERS[0]: difference(shape)}, r"attn1.to_q is a full difference"),
        ({LAYERS[0]: hadamard(shape), LAYERS[1]: low_rank(TINY.shapes[LAYERS[1]])}, r"unet has LoHa and LoRA"),
        ({LAYERS[0]: hadamard(shape, magnitude=low_rank(shape, dora="out").magnitude)}, r"has DoRA magnitudes"),
        ({LAYERS[0]: kronecker(shape, (4, 16), rank=2)}, r"no decompose_factor gives these layers .*attn1.to_q"),
    ]:
        with pytest.raises(ArtifactError, match=message):
            write(tmp_path / "file", Updates(layers), [TINY])
    assert not (tmp_path / "file").exists()
    cores = lohas(core=True)
    cores["unet.mid_block.resnets.1.conv1"] = lohas(core=False)["unet.mid_block.resnets.1.conv1"]
    with pytest.raises(ArtifactError, match=r"mid_block.resnets.1.conv1 has no core, and others have"):
        write(tmp_path / "file", Updates(cores), [TINY])


@given(st.integers(1, 4000), st.integers(-1, 64).filter(bool))
def test_factors_are_peft_s(dimension, factor):
    from peft.tuners.lokr.layer import factorization as theirs

    assert factorization(dimension, factor) == theirs(dimension, factor)
