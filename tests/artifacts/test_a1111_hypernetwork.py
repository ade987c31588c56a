"""A1111's hypernetworks: exact both ways, read as A1111 reads them, and refused where they say what they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inlay.artifacts.a1111_hypernetwork import from_inlay, read_a1111, to_inlay, write_a1111
from inlay.errors import ArtifactError
from inlay.files import read_tensors, write_tensors
from inlay.methods import Hypernetwork
from tests.contracts.bases import outputs, perturb, tiny

METHODS = [
    Hypernetwork(widths=(32,)),
    Hypernetwork(widths="all", activation="linear", init="normal"),
    Hypernetwork(widths=(32, 64), activation="swish", activate_output=True, init="xavier_normal"),
    Hypernetwork(
        widths=(64,),
        layer_structure=(1, 2, 1.5, 1),
        activation="leakyrelu",
        layer_norm=True,
        dropout_structure=(0, 0.3, 0, 0),
    ),
]


def saved(method: Hypernetwork) -> tuple[dict[str, Tensor], dict[str, str]]:
    attachment = method.attach(tiny())
    perturb(attachment)
    state = {name: value.clone() for name, value in attachment.state().items()}
    return state, {**attachment.metadata(), "inlay.method": method.model_dump_json(), "inlay.steps": "7"}


def webui_network(data: dict[str, Any], width: int, kind: int) -> nn.Sequential:
    """Build a network from the fields of a file, by the rules that A1111's loader follows, and load it strictly."""
    layers: list[nn.Module] = []
    structure, dropout = data["layer_structure"], data["dropout_structure"]
    kinds = {"relu": nn.ReLU, "swish": nn.Hardswish, "leakyrelu": nn.LeakyReLU}
    for index in range(len(structure) - 1):
        outputs = int(width * structure[index + 1])
        layers.append(nn.Linear(int(width * structure[index]), outputs))
        last = index >= len(structure) - 2
        if data["activation_func"] != "linear" and (data.get("activate_output", True) or not last):
            layers.append(kinds[data["activation_func"]]())
        if data["is_layer_norm"]:
            layers.append(nn.LayerNorm(outputs))
        if dropout is not None and dropout[index + 1] > 0:
            layers.append(nn.Dropout(dropout[index + 1]))
    network = nn.Sequential(*layers)
    holder = nn.ModuleDict({"linear": network})
    holder.load_state_dict(data[width][kind])
    return network.eval()


@pytest.mark.parametrize("method", METHODS)
def test_there_and_back_is_exact_and_attaches(tmp_path: Path, method: Hypernetwork):
    state, metadata = saved(method)
    write_a1111(tmp_path / "rex.pt", from_inlay(state, metadata, "own"))
    again, header = to_inlay(read_a1111(tmp_path / "rex.pt"))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert {key: value for key, value in header.items() if key.startswith("hypernetwork.")} == {
        key: value for key, value in metadata.items() if key.startswith("hypernetwork.")
    }
    assert header["inlay.steps"] == "7"

    components, other = tiny(), tiny()
    method.attach(components).load(state)
    Hypernetwork.model_validate_json(header["inlay.method"]).attach(other).load(again)
    assert torch.equal(outputs(components), outputs(other))


@pytest.mark.parametrize("method", METHODS)
def test_a1111_builds_the_same_networks_from_the_file(tmp_path: Path, method: Hypernetwork):
    state, metadata = saved(method)
    write_a1111(tmp_path / "rex.pt", from_inlay(state, metadata, "own"))
    data = torch.load(tmp_path / "rex.pt", weights_only=True)
    assert data["name"] == "rex"
    assert data["step"] == 7
    components = tiny()
    method.attach(components).load(state)
    unet: Any = components["unet"]
    attention = unet.mid_block.attentions[0].transformer_blocks[0]
    widths = [key for key in data if type(key) is int]
    assert widths == sorted({int(name.split(".")[1]) for name in state})
    for layer in (attention.attn1, attention.attn2):
        width = layer.cross_attention_dim
        if width not in widths:
            continue
        x = torch.randn(1, 5, width, generator=torch.Generator().manual_seed(1))
        for kind, child in enumerate(("to_k", "to_v")):
            seen: dict[str, Tensor] = {}
            projection = getattr(layer, child)
            handle = projection.register_forward_pre_hook(lambda layer, given, seen=seen: seen.update(x=given[0]))
            outputs(components)  # lets the taps settle
            projection(x)
            handle.remove()
            torch.testing.assert_close(seen["x"], x + webui_network(data, width, kind)(x))


def test_precision_is_kept(tmp_path: Path):
    state, metadata = saved(Hypernetwork(widths=(32,)))
    half = {name: value.half() for name, value in state.items()}
    write_a1111(tmp_path / "a.pt", from_inlay(half, metadata, "own"))
    again, _ = to_inlay(read_a1111(tmp_path / "a.pt"))
    assert all(value.dtype == torch.float16 for value in again.values())


def test_facts_of_the_training_come_along(tmp_path: Path):
    state, metadata = saved(Hypernetwork(widths=(32,)))
    path = write_tensors(tmp_path / "own.safetensors", state, {**metadata, "inlay.base": "sd-v1.5"})
    write_a1111(tmp_path / "a.pt", from_inlay(*read_tensors(path), "own"))
    found = read_a1111(tmp_path / "a.pt")
    assert (found.name, found.step, found.sd_checkpoint, found.sd_checkpoint_name) == ("a", 7, None, "sd-v1.5")
    assert to_inlay(found)[1]["inlay.base"] == "sd-v1.5"


def old_file(width: int = 768, **fields: Any) -> dict[Any, Any]:
    def state() -> dict[str, Tensor]:
        return {
            "linear1.weight": torch.randn(2 * width, width),
            "linear1.bias": torch.randn(2 * width),
            "linear2.weight": torch.randn(width, 2 * width),
            "linear2.bias": torch.randn(width),
        }

    return {width: (state(), state()), **fields}


def test_files_from_before_the_settings_are_read(tmp_path: Path):
    data = old_file(step=20000, name="anime")
    torch.save(data, tmp_path / "old.pt")
    found = read_a1111(tmp_path / "old.pt")
    assert (found.activation, found.layer_structure, found.activate_output) == ("linear", (1, 2, 1), True)
    assert torch.equal(found.networks[768][1]["linear.1.bias"], data[768][1]["linear2.bias"])
    tensors, header = to_inlay(found)
    method = Hypernetwork.model_validate_json(header["inlay.method"])
    assert method.widths == "cross"  # no self-attention of Stable Diffusion 1 has 768 channels
    assert set(tensors) == {
        f"unet.768.{kind}.linear.{i}.{name}" for kind in ("key", "value") for i in (0, 1) for name in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("fields", "dropout"),
    [
        ({"use_dropout": True, "layer_structure": [1, 2, 2, 1]}, (0, 0.3, 0, 0)),
        ({"use_dropout": True, "last_layer_dropout": True, "layer_structure": [1, 2, 2, 1]}, (0, 0.3, 0.3, 0)),
        ({"use_dropout": False, "layer_structure": [1, 2, 2, 1]}, None),
        ({"dropout_structure": [0, 0, 0, 0], "layer_structure": [1, 2, 2, 1]}, None),
    ],
)
def test_dropout_that_is_only_announced_is_spelled_out(tmp_path: Path, fields: dict[str, Any], dropout: Any):
    shapes, state, place = [(8, 4), (8, 8), (4, 8)], {}, 0
    for index, shape in enumerate(shapes):
        state |= {f"linear.{place}.weight": torch.zeros(shape), f"linear.{place}.bias": torch.zeros(shape[0])}
        place += 1 + bool(dropout and dropout[index + 1])
    torch.save({4: (state, state), **fields}, tmp_path / "a.pt")
    assert read_a1111(tmp_path / "a.pt").dropout_structure == dropout


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": torch.ones(1)}, "not an A1111 hypernetwork"),
        ({768: {"a": torch.ones(1)}}, "not an A1111 hypernetwork"),
        (old_file(8, activation_func="prelu"), r"activation_func='prelu' is not supported; allowed: linear, relu"),
        (old_file(8, activation_func="relu"), r"width 8 for the keys.*linear\.1\.bias is \(8,\) instead of absent"),
        (old_file(8, is_layer_norm=True), r"linear\.1\.bias is \(8,\) instead of \(16,\)"),
        (old_file(8, layer_structure=[1, 2]), r"layer_structure=\[1, 2\] must begin and end with 1"),
        (old_file(8, layer_structure=["1", 1]), "hold numbers only"),
        (old_file(8, dropout_structure=[0, 0.3]), r"dropout_structure=\[0, 0.3\] must be as long as"),
        ({8: ({"linear.0.weight": 3}, {})}, r"'linear.0.weight' of the network of width 8 is no tensor"),
    ],
)
def test_what_is_not_what_it_says_is_refused(tmp_path: Path, data: Any, message: str):
    torch.save(data, tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match=message):
        read_a1111(tmp_path / "a.pt")


def test_what_a1111_would_apply_otherwise_is_refused(tmp_path: Path):
    file = from_inlay(*saved(Hypernetwork(widths="cross", strength=0.6)), "own")
    with pytest.raises(ArtifactError, match=r"a\.pt: strength=0\.6 has no place in an A1111 file"):
        write_a1111(tmp_path / "a.pt", file)
    file = from_inlay(*saved(Hypernetwork(widths="cross")), "own")
    with pytest.raises(ArtifactError, match="widths=cross with width 32: A1111 would apply it to self-attention"):
        write_a1111(tmp_path / "a.pt", file)
    assert list(tmp_path.iterdir()) == []


def test_inlays_own_file_holds_what_a1111s_cannot(tmp_path: Path):
    method = Hypernetwork(widths="cross", strength=0.6)
    state, metadata = saved(method)
    again, header = to_inlay(from_inlay(state, metadata, "own"))
    found = Hypernetwork.model_validate_json(header["inlay.method"])
    assert (found.widths, found.strength) == ("cross", 0.6)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_what_is_no_hypernetwork_of_inlays_is_refused():
    with pytest.raises(ArtifactError, match=r"own: not a hypernetwork of inlay: unet\.mid\.bias"):
        from_inlay({"unet.mid.bias": torch.zeros(1)}, {}, "own")
    state, _ = saved(Hypernetwork())
    with pytest.raises(ArtifactError, match="not a hypernetwork of inlay"):
        from_inlay(state, {"inlay.method": json.dumps({"widths": [32]})}, "own")
