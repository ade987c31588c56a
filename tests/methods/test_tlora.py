"""T-LoRA: which ranks act when, what it begins with, and its size."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import TargetError
from inlay.methods import Lora, Prefix, TLora
from inlay.methods.timed_update import START, rank_mask
from tests.contracts.bases import outputs, perturb, tiny
from tests.methods.small import noise, transformer_without_text, unet_without_attention

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
SMALL = TLora(rank=4, min_rank=1)


def predict(unet: Any, timestep: Any, batch: int = 2) -> Tensor:
    states = noise(2, 5, 32, seed=6)[:batch]
    return unet(noise(2, 4, 8, 8, seed=5)[:batch], timestep, states, return_dict=False)[0]


@pytest.mark.parametrize(
    ("timestep", "rank", "min_rank", "acting"),
    [
        (0, 8, 4, 8),
        (1, 8, 4, 7),
        (250, 8, 4, 7),
        (251, 8, 4, 6),
        (500, 8, 4, 6),
        (999, 8, 4, 4),
        (1000, 8, 4, 4),
        (999, 8, 0, 0),
        (500, 64, 32, 48),
        (700, 3, 3, 3),
        (249.5, 8, 4, 7),
    ],
)
def test_ranks_by_timestep(timestep: float, rank: int, min_rank: int, acting: int):
    [mask] = rank_mask(torch.tensor([timestep]), rank, min_rank, 1000)
    assert mask.tolist() == [1.0] * acting + [0.0] * (rank - acting)


def test_a_layer_is_the_arithmetic_spelled_out():
    components = tiny()
    layer = components["unet"].get_submodule(LAYER)
    attachment: Any = SMALL.attach(components)
    start = {name: value.clone() for name, value in attachment.state().items()}
    perturb(attachment)
    predict(components["unet"], torch.tensor([100, 700]))
    x = noise(2, 5, 32)
    plain = torch.nn.functional.linear(x, layer.weight)
    now = attachment.state()
    for index, acting in enumerate([3, 1]):  # 1 + floor(3 * 0.9) and 1 + floor(3 * 0.3)
        delta = sum(
            part[f"unet.{LAYER}.B"][:, :acting]
            @ part[f"unet.{LAYER}.S"][:acting].diag()
            @ part[f"unet.{LAYER}.A"][:acting]
            * sign
            for part, sign in ((now, 1), (start, -1))
        )
        torch.testing.assert_close(layer(x)[index], plain[index] + x[index] @ delta.T)


def test_timesteps_come_as_numbers_tensors_and_by_name():
    unet = tiny()["unet"]
    perturb(SMALL.attach({"unet": unet}))
    expected = predict(unet, torch.tensor([300, 300]))
    assert not torch.allclose(predict(unet, torch.tensor([900, 900])), expected)
    for timestep in (300, 300.0, torch.tensor(300), torch.tensor([300])):
        torch.testing.assert_close(predict(unet, timestep), expected)
    states = noise(2, 5, 32, seed=6)
    named = unet(sample=noise(2, 4, 8, 8, seed=5), timestep=300, encoder_hidden_states=states, return_dict=False)[0]
    torch.testing.assert_close(named, expected)


def test_each_picture_has_the_ranks_of_its_own_timestep():
    unet = tiny()["unet"]
    perturb(SMALL.attach({"unet": unet}))
    together = predict(unet, torch.tensor([20, 900]))
    torch.testing.assert_close(together[:1], predict(unet, torch.tensor([20]), batch=1))


def test_on_pure_noise_only_the_first_ranks_learn():
    components = tiny()
    attachment = TLora(rank=4, min_rank=1).attach(components)
    predict(components["unet"], torch.tensor([999, 999])).square().mean().backward()
    for name, parameter in attachment.parameters().items():
        assert parameter.grad is not None
        of_rank = (
            parameter.grad.abs().reshape(-1, 4).sum(0) if name.endswith(("B", "S")) else parameter.grad.abs().sum(1)
        )
        assert (of_rank > 0).tolist() == [True, False, False, False], name


def test_it_begins_orthonormal_and_the_same_for_a_seed():
    state, again, other = (TLora(rank=4, seed=seed).attach(tiny()).state() for seed in (3, 3, 4))
    frames = set()
    for name, value in state.items():
        assert torch.equal(value, again[name])
        if name.endswith(".S"):
            assert torch.equal(value, torch.full((4,), START))
            continue
        rows = value if name.endswith(".A") else value.T
        torch.testing.assert_close(rows @ rows.T, torch.eye(4))
        assert not torch.allclose(value, other[name], atol=1e-3)
        frames.add(round(value.sum().item(), 5))
    assert len(frames) == 2 * len(state) // 3, "no two layers begin alike"


def test_half_of_the_ranks_act_on_pure_noise_by_default():
    found: Any = TLora(rank=5).attach(tiny())
    assert found.min_rank == 3
    found = TLora(rank=5, min_rank=0).attach(tiny())
    assert found.min_rank == 0


@pytest.mark.parametrize("other", [Lora(rank=2, targets="everything"), Prefix(length=3)], ids=lambda other: other.name)
def test_the_order_of_it_and_another_method_makes_no_difference(other: Any):
    results = []
    for first in (True, False):
        components = tiny()
        attachments = {}
        for method in (SMALL, other) if first else (other, SMALL):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                attachments[method] = method.attach(components)
        for seed, method in enumerate((SMALL, other)):
            perturb(attachments[method], seed)
        results.append(outputs(components))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)


def test_a_copy_of_the_base_knows_its_own_timesteps():
    components = tiny()
    perturb(SMALL.attach(components))
    copied, tuned = copy.deepcopy(components["unet"]), predict(components["unet"], torch.tensor([20, 20]))
    predict(components["unet"], torch.tensor([900, 900]))
    assert torch.equal(predict(copied, torch.tensor([20, 20])), tuned)


def test_gradient_checkpointing_changes_no_gradient_even_around_a_pass_of_the_base():
    found = []
    for checkpointing in (False, True):
        components = tiny()
        unet = components["unet"].train()
        attachment = SMALL.attach(components)
        perturb(attachment)
        if checkpointing:
            unet.enable_gradient_checkpointing()
        loss = predict(unet, torch.tensor([20, 600])).square().mean()
        with attachment.disabled(), torch.no_grad():
            predict(unet, torch.tensor([900, 900]))
        loss.backward()
        found.append([parameter.grad for parameter in attachment.parameters().values()])
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.slow
def test_a_compiled_base_computes_the_same():
    components = tiny()
    unet = components["unet"]
    attachment = SMALL.attach(components)
    perturb(attachment)
    Lora(rank=2).attach(components)
    expected = [predict(unet, torch.tensor(pair)) for pair in ([20, 900], [600, 300])]
    with attachment.disabled():
        disabled = predict(unet, torch.tensor([20, 900]))
    unet.compile(backend="eager")
    for pair, values in zip(([20, 900], [600, 300]), expected, strict=True):
        torch.testing.assert_close(predict(unet, torch.tensor(pair)), values)
    with attachment.disabled():
        torch.testing.assert_close(predict(unet, torch.tensor([20, 900])), disabled)


def test_more_ranks_at_noise_than_there_are_is_refused():
    with pytest.raises(ValidationError, match="min_rank=5 is more than rank=4"):
        TLora(rank=4, min_rank=5)


def test_a_denoiser_without_attention_is_refused():
    unet = unet_without_attention()
    with pytest.raises(TargetError, match=r"tlora: the denoiser, a UNet2DModel, has no attention"):
        TLora().attach({"unet": unet})


def test_it_acts_in_a_diffusion_transformer():
    dit = transformer_without_text()
    labels = torch.tensor([1])
    base = {t: dit(noise(1, 4, 8, 8), timestep=torch.tensor([t]), class_labels=labels).sample for t in (5, 999)}
    attachment = TLora(rank=2, min_rank=0).attach({"unet": dit})
    perturb(attachment)
    tuned = {t: dit(noise(1, 4, 8, 8), timestep=torch.tensor([t]), class_labels=labels).sample for t in (5, 999)}
    assert not torch.allclose(tuned[5], base[5])
    assert torch.equal(tuned[999], base[999]), "no rank acts on pure noise"


@pytest.mark.parametrize(
    ("method", "count"),
    [
        # r (inputs + outputs + 1) over four projections in each of 32 layers.
        (TLora(rank=1), 199_296 + 128),
        (TLora(rank=8), 8 * 199_424),
        (TLora(rank=4, attention="cross"), 4 * (99_456 + 64)),
    ],
)
def test_sizes_on_stable_diffusion(method: TLora, count: int):
    settings = BaseSettings(model="sd-v1.4")
    parts = read_architecture(settings, locate(settings, weights=False)).meta()
    assert sum(parameter.numel() for parameter in method.attach(parts).parameters().values()) == count
