"""Adapters: settings, sizes, and one adapter in each block of a denoiser."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError, TargetError
from inlay.methods import METHODS, Adapter, Lora
from inlay.methods.adapter import PAIRS, AdapterAttachment
from inlay.methods.blocks import find_blocks
from inlay.run.load_job import load_job
from tests.methods import reference
from tests.tiny import make_tiny_components

RECIPES = Path(__file__).parents[2] / "recipes" / "adapters"
POSITIONS = ("SA_in", "SA_out", "CA_in", "CA_out", "CA_c", "FFN_in", "FFN_out", "Trans_out", "Res_in", "Res_out")
ACTIVATIONS = {"relu": F.relu, "sigmoid": torch.sigmoid, "silu": F.silu, "identity": lambda x: x}


@pytest.fixture
def parts() -> dict[str, Any]:
    return make_tiny_components()


@pytest.fixture(scope="module")
def stable_diffusion() -> dict[str, nn.Module]:
    settings = BaseSettings(model="sd-v1.4")
    return read_architecture(settings, locate(settings, weights=False)).meta()


def predict(unet: Any) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    noisy, text = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 7, 32, generator=draw)
    return unet(noisy, torch.tensor([10, 800]), text, return_dict=False)[0]


def perturb(attachment: AdapterAttachment, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in attachment.parameters().values():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw)


def count(attachment: AdapterAttachment) -> int:
    return sum(parameter.numel() for parameter in attachment.parameters().values())


def test_there_are_20_pairs_and_every_other_is_refused_with_the_reason():
    assert len(PAIRS) == 20
    for first, second in itertools.product(POSITIONS, POSITIONS):
        if (first, second) in PAIRS:
            Adapter(input=first, output=second)  # pyright: ignore[reportArgumentType]
            continue
        with pytest.raises(ValidationError) as caught:
            Adapter(input=first, output=second)  # pyright: ignore[reportArgumentType]
        [error] = caught.value.errors()
        said = error["msg"]
        if second in ("SA_out", "CA_out", "FFN_out"):
            assert f"{second} cannot be an output of its own" in said
        elif first[:3] != second[:3] and "Res" in first + second and "CA_c" not in (first, second):
            assert "one lies in transformer blocks and the other in residual blocks" in said
        elif "CA_c" in (first, second):
            assert "CA_c has one vector for each word" in said
        else:
            assert f"{second} is computed before {first}" in said
        if second not in ("SA_out", "CA_out", "FFN_out"):
            allowed = [b for a, b in PAIRS if a == first]
            assert said.endswith(f"allowed for input={first}: {', '.join(allowed)}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 4, "budget": 1000}, "width=4 and budget=1000 both say"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"scale": 0}, "with scale=0 adapters would do nothing"),
        ({"blocks": "("}, "is no regular expression"),
        ({"activation": "tanh"}, "'relu', 'sigmoid', 'silu' or 'identity'"),
        ({"input": "ca_out"}, "Input should be 'SA_in'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Adapter(**settings)


@pytest.mark.parametrize(
    ("input", "output", "width", "expected"),
    [
        ("CA_out", "FFN_in", 60, 1_511_040),
        ("CA_out", "FFN_in", 256, 6_406_336),
        ("SA_in", "Trans_out", 60, 1_511_040),
        ("CA_c", "CA_c", 60, 1_487_808),
        ("CA_c", "CA_c", 260, 6_406_208),
        ("FFN_out", "Trans_out", 49, 1_236_304),
        ("Res_in", "Res_in", 3, 1_696_386),
        ("Res_in", "Res_out", 3, 1_427_586),
        ("Res_out", "Res_out", 4, 1_512_088),
        ("Res_in", "Res_in", 12, 6_517_704),
        ("Res_in", "Res_out", 14, 6_369_908),
        ("Res_out", "Res_out", 17, 6_229_814),
    ],
)
def test_sizes_on_stable_diffusion(
    stable_diffusion: dict[str, nn.Module], input: Any, output: Any, width: int, expected: int
):
    attachment = Adapter(input=input, output=output, width=width).attach(stable_diffusion)
    assert count(attachment) == expected
    attachment.detach()
    # The same width follows from the budget, and from no smaller one.
    for budget, resolved in ((expected, width), (expected + 1, width), (expected - 1, width - 1)):
        attachment = Adapter(input=input, output=output, budget=budget).attach(stable_diffusion)
        assert attachment.width == resolved
        assert count(attachment) <= budget
        attachment.detach()


@pytest.mark.parametrize(("input", "output"), [("CA_out", "FFN_in"), ("Res_in", "Res_out")])
def test_the_default_size_is_the_publications(stable_diffusion: dict[str, nn.Module], input: Any, output: Any):
    attachment = Adapter(input=input, output=output).attach(stable_diffusion)
    assert 1.4e6 < count(attachment) < 1.6e6
    attachment.detach()


def test_a_budget_too_small_for_any_is_refused(parts: dict[str, Any]):
    with pytest.raises(TargetError, match=r"method.budget=100: adapters in 4 blocks have \d+ parameters at least"):
        Adapter(budget=100).attach(parts)


def spelled_out(attachment: AdapterAttachment, block: str, scale: float, activation: str, groups: int) -> Any:
    """Return the function of a block's adapter, written out from its saved tensors."""
    tensors = {
        name.removeprefix(f"unet.{block}.adapter."): tensor
        for name, tensor in attachment.state().items()
        if name.startswith(f"unet.{block}.adapter.")
    }
    down, up = (tensors["down.weight"], tensors["down.bias"]), (tensors["up.weight"], tensors["up.bias"])
    if "norm.weight" not in tensors:
        assert tensors.keys() == {"down.weight", "down.bias", "up.weight", "up.bias"}
        return lambda x: scale * (ACTIVATIONS[activation](x @ down[0].T + down[1]) @ up[0].T + up[1])

    def over_pixels(x: Tensor) -> Tensor:
        grouped = x.reshape(x.shape[0], groups, -1)
        mean, var = grouped.mean(-1, keepdim=True), grouped.var(-1, keepdim=True, unbiased=False)
        x = ((grouped - mean) / (var + 1e-5).sqrt()).reshape(x.shape)
        x = F.silu(x * tensors["norm.weight"][:, None, None] + tensors["norm.bias"][:, None, None])
        return scale * F.conv2d(ACTIVATIONS[activation](F.conv2d(x, *down, padding=1)), *up, padding=1)

    return over_pixels


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("pair", PAIRS, ids="->".join)
def test_every_pair_and_activation_in_a_denoisers_blocks(parts: dict[str, Any], pair: tuple[str, str], activation: str):
    method = Adapter(input=pair[0], output=pair[1], activation=activation, scale=0.5, width=4)  # pyright: ignore[reportArgumentType]
    attachment = method.attach(parts)
    perturb(attachment)
    plain = make_tiny_components()["unet"]
    draw = torch.Generator().manual_seed(2)
    for block in find_blocks(parts["unet"], method.kind)[::3]:
        function = spelled_out(attachment, block.name, 0.5, activation, groups=8)
        module, untouched = block.module, plain.get_submodule(block.name)
        if method.kind == "residual":
            x = torch.randn(2, block.sites["Res_in"].width, 4, 4, generator=draw)
            time = torch.randn(2, 128, generator=draw)
            result, expected = module(x, time), reference.residual(untouched, x, time, [(*pair, function)])
        else:
            x = torch.randn(2, 5, block.sites["SA_in"].width, generator=draw)
            text = torch.randn(2, 7, 32, generator=draw)
            result = module(x, encoder_hidden_states=text)
            expected = reference.transformer(untouched, x, text, [(*pair, function)])
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("init", ["zero", "default"])
@pytest.mark.parametrize("pair", [("CA_out", "FFN_in"), ("Res_in", "Res_out")], ids="->".join)
def test_initialisation(parts: dict[str, Any], pair: tuple[Any, Any], init: Any):
    before = predict(parts["unet"])
    torch.manual_seed(0)
    attachment = Adapter(input=pair[0], output=pair[1], width=8, init=init).attach(parts)
    assert torch.equal(predict(parts["unet"]), before) == (init == "zero")
    for name, tensor in attachment.state().items():
        if ".norm." in name:
            assert torch.equal(tensor, torch.full_like(tensor, float(name.endswith("weight"))))
        elif init == "zero" and ".up." in name:
            assert not tensor.any()
        elif name.endswith("weight"):  # PyTorch's layers: uniform between -b and b = 1 / sqrt(inputs of one output)
            bound = tensor[0].numel() ** -0.5
            assert 0.8 * bound < tensor.abs().max() <= bound


def test_blocks_are_chosen_by_a_pattern(parts: dict[str, Any]):
    attachment = Adapter(blocks="^up_blocks").attach(parts)
    assert {name.split(".")[1] for name in attachment.parameters()} == {"up_blocks"}
    attachment.detach()
    with pytest.raises(TargetError, match=r"method.blocks='middle' is found in no name of a transformer block; .*down"):
        Adapter(blocks="middle").attach(parts)


def test_denoisers_without_the_blocks_or_positions_are_refused():
    with pytest.raises(TargetError, match=r"a Linear, has no transformer blocks .*BasicTransformerBlock"):
        Adapter().attach({"unet": nn.Linear(2, 2)})
    with pytest.raises(TargetError, match=r"a Linear, has no residual blocks .*ResnetBlock2D"):
        Adapter(input="Res_in", output="Res_in").attach({"unet": nn.Linear(2, 2)})
    from diffusers import DiTTransformer2DModel

    with torch.device("meta"):
        dit = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8)
    modules = list(dit.modules())
    with pytest.raises(TargetError, match=r"method.input=CA_out cannot be had in the block transformer_blocks.0: it h"):
        Adapter().attach({"unet": dit})
    with pytest.raises(TargetError, match=r"method.output=FFN_in .* scale what self-attention gives .*: SA_in, Trans"):
        Adapter(input="SA_in", output="FFN_in").attach({"unet": dit})
    assert list(dit.modules()) == modules
    assert count(Adapter(input="FFN_in", output="Trans_out", width=2).attach({"unet": dit})) == 2 * (4 * 16 + 18)


def test_merging_is_refused_and_changes_nothing(parts: dict[str, Any]):
    attachment = Adapter(activation="identity").attach(parts)
    perturb(attachment)
    before = predict(parts["unet"])
    with pytest.raises(TargetError, match="cannot be merged"):
        attachment.merge()
    assert torch.equal(predict(parts["unet"]), before)


@pytest.mark.parametrize("method", [Adapter(budget=5000), Adapter(input="Res_in", output="Res_in", activation="silu")])
def test_what_is_saved_attaches_again(parts: dict[str, Any], method: Adapter):
    attachment = method.attach(parts)
    perturb(attachment)
    expected = predict(parts["unet"])
    settings = json.loads(attachment.metadata()["inlay.adapter"])
    again = METHODS[settings["name"]].model_validate(settings)
    other = make_tiny_components()
    again.attach(other).load(attachment.state())
    assert torch.equal(predict(other["unet"]), expected)
    with pytest.raises(ArtifactError, match="another shape"):
        method.model_copy(update={"width": 7, "budget": None}).attach(make_tiny_components()).load(attachment.state())


def test_two_adapters_and_a_lora(parts: dict[str, Any]):
    unet = parts["unet"]
    before, modules = predict(unet), [type(module) for module in unet.modules()]
    made: list[Any] = [Adapter(width=4).attach(parts), Lora(rank=2, targets="everything").attach(parts)]
    made += [Adapter(input="FFN_in", output="FFN_in", width=4).attach(parts)]
    made += [Adapter(input="Res_in", output="Res_out", width=2).attach(parts)]
    assert torch.equal(predict(unet), before)
    assert not any("inlay_bridges" in name for name in made[1].parameters())
    for seed, attachment in enumerate(made):
        perturb(attachment, seed)
    whole = predict(unet)
    whole.square().mean().backward()
    for attachment in made:
        assert all(parameter.grad is not None for parameter in attachment.parameters().values())
        with attachment.disabled():
            assert not torch.allclose(predict(unet), whole)
    assert torch.equal(predict(unet), whole)
    made[2].detach()
    unet_without = predict(unet)
    assert not torch.allclose(unet_without, whole)
    for attachment in (made[0], made[3], made[1]):
        attachment.detach()
    assert torch.equal(predict(unet), before)
    assert [type(module) for module in unet.modules()] == modules


def test_gradient_checkpointing_in_a_denoiser(parts: dict[str, Any]):
    unet = parts["unet"].train()
    made = [Adapter(width=4).attach(parts), Adapter(input="Res_in", output="Res_in", width=2).attach(parts)]
    made += [Adapter(input="CA_in", output="Trans_out", width=4).attach(parts)]
    for attachment in made:
        perturb(attachment)
    gradients = []
    for enable in (unet.disable_gradient_checkpointing, unet.enable_gradient_checkpointing):
        enable()
        predict(unet).square().mean().backward()
        owned = [parameter for attachment in made for parameter in attachment.parameters().values()]
        gradients.append([parameter.grad for parameter in owned])
        for parameter in owned:
            parameter.grad = None
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def test_a_frozen_base_in_half_precision_under_autocast(parts: dict[str, Any]):
    attachment = Adapter(width=4).attach(parts)
    perturb(attachment)
    exact = predict(parts["unet"])
    for parameter in parts["unet"].parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = predict(parts["unet"])
        with attachment.disabled():
            base = predict(parts["unet"])
    assert rounded.dtype == base.dtype
    torch.testing.assert_close(rounded.float(), exact, atol=0.1, rtol=0.1)
    rounded.float().square().mean().backward()
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.float32
        for parameter in attachment.parameters().values()
    )


def test_an_adapter_learns(parts: dict[str, Any]):
    torch.manual_seed(0)
    unet = parts["unet"]
    target = predict(copy.deepcopy(unet)) + 0.3
    attachment = Adapter(width=8).attach(parts)
    optimizer = torch.optim.AdamW(attachment.parameters().values(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = F.mse_loss(predict(unet), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_have_the_sizes_that_they_state(stable_diffusion: dict[str, nn.Module], path: Path):
    [method] = load_job(path).methods
    attachment = method.attach(stable_diffusion)
    sizes = [parameter.numel() for parameter in attachment.parameters().values()]
    attachment.detach()
    text = path.read_text(encoding="utf-8")
    [counted] = re.findall(r"[Cc]ounted: ([\d,]+)", text)
    [published] = re.findall(r"[Pp]ublished: ([\d.]+) M", text)
    assert sum(sizes) == int(counted.replace(",", ""))
    [share] = re.findall(r"\(([\d.]+) % of the U-Net", text)
    assert f"{100 * sum(sizes) / 859_520_964:.3f}" == share
    assert float(published) > 0


def test_there_is_a_recipe_of_every_published_size():
    assert len(list(RECIPES.glob("*.yaml"))) == 11
