"""The gate over adapters, LoRA and prefixes: what opens it, what it scales, what it reports, and its size."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from pydantic import ValidationError
from torch import Tensor

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import TargetError
from inlay.methods import Gated, Lora, Prefix
from tests.contracts.bases import Snapshot, outputs, perturb, tiny
from tests.methods.small import noise, transformer_without_text, unet_without_attention

BLOCK = "mid_block.attentions.0.transformer_blocks.0"
SMALL = Gated(adapter_width=3, lora_rank=2, prefix_length=2)


def attached(method: Gated, components: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return method.attach(components)


class Explicit:
    """A block's own weights and those of a saved file, and the arithmetic spelled out; gates may be given."""

    def __init__(self, block: Any, state: dict[str, Tensor]):
        self.block = block
        self.own = {name.removeprefix(f"unet.{BLOCK}."): value for name, value in state.items() if BLOCK in name}

    def gates(self, x: Tensor) -> list[Tensor]:
        opened = torch.sigmoid(x @ self.own["gates.weight"].T + self.own["gates.bias"])
        return [gate.mean(dim=1).reshape(-1, 1, 1) for gate in opened.unbind(-1)]

    def projected(self, layer: str, name: str, x: Tensor, gate: Tensor) -> Tensor:
        place = f"{layer}.{name}"
        lora = x @ self.own[f"{place}.lora.A"].T @ self.own[f"{place}.lora.B"].T
        return self.block.get_submodule(place)(x) + gate * lora

    def attended(self, layer: str, x: Tensor, context: Tensor, lora: Tensor, prefix: Tensor | None) -> Tensor:
        queries = self.projected(layer, "to_q", x, lora)
        keys, values = (self.projected(layer, name, context, lora) for name in ("to_k", "to_v"))
        if prefix is not None:
            keys = torch.cat([prefix * self.own[f"{layer}.key"], keys], dim=1)
            values = torch.cat([prefix * self.own[f"{layer}.value"], values], dim=1)
        heads = []
        for part in torch.arange(queries.shape[-1]).chunk(self.block.get_submodule(layer).heads):
            scores = queries[..., part] @ keys[..., part].transpose(1, 2) / math.sqrt(len(part))
            heads.append(scores.softmax(-1) @ values[..., part])
        return self.projected(layer, "to_out.0", torch.cat(heads, dim=-1), lora)

    def __call__(self, x: Tensor, context: Tensor, gates: list[Tensor] | None = None) -> Tensor:
        adapter, lora, prefix = self.gates(x) if gates is None else gates
        normed = self.block.norm1(x)
        x = x + self.attended("attn1", normed, normed, lora, None)
        crossed = self.attended("attn2", self.block.norm2(x), context, lora, prefix)
        hidden = F.silu(F.linear(crossed, self.own["attn2.adapter.down.weight"], self.own["attn2.adapter.down.bias"]))
        adapted = F.linear(hidden, self.own["attn2.adapter.up.weight"], self.own["attn2.adapter.up.bias"])
        x = x + crossed + adapter * adapted
        return x + self.block.ff(self.block.norm3(x))


def test_a_block_is_the_arithmetic_spelled_out():
    components = tiny()
    plain: Any = copy.deepcopy(components["unet"].get_submodule(BLOCK))
    block = components["unet"].get_submodule(BLOCK)
    attachment = attached(SMALL, components)
    perturb(attachment)
    x, context = noise(2, 6, 64), noise(2, 5, 32, seed=1)
    explicit = Explicit(plain, attachment.state())
    expected = explicit(x, context)
    torch.testing.assert_close(block(x, encoder_hidden_states=context), expected)
    torch.testing.assert_close(block(hidden_states=x, encoder_hidden_states=context), expected)
    assert not torch.allclose(explicit(x, context, [torch.full((2, 1, 1), 0.5)] * 3), expected)


def test_each_picture_opens_its_own_gates():
    components = tiny()
    block = components["unet"].get_submodule(BLOCK)
    perturb(attached(SMALL, components))
    x, context = noise(2, 6, 64), noise(2, 5, 32, seed=1)
    together = block(x, encoder_hidden_states=context)
    for index in range(2):
        alone = block(x[index : index + 1], encoder_hidden_states=context[index : index + 1])
        torch.testing.assert_close(together[index], alone[0])


def test_a_closed_gate_lets_nothing_of_adapter_and_lora_through():
    components = tiny()
    base = outputs(components)
    attachment = attached(Gated(adapter_width=3, lora_rank=2, prefix_length=None), components)
    perturb(attachment)
    for name, parameter in attachment.parameters().items():
        if name.endswith(".gates.weight"):
            parameter.data.zero_()
        if name.endswith(".gates.bias"):
            parameter.data.fill_(-100)
    torch.testing.assert_close(outputs(components), base)


def test_gates_begin_half_open_and_are_reported_after_training_only():
    components = tiny()
    attachment = attached(SMALL, components)
    outputs(components)
    assert attachment.gates() == {}
    assert "inlay.gates" not in attachment.metadata()
    components["unet"].train()
    outputs(components)
    names = [name for name, module in components["unet"].named_modules() if isinstance(module, BasicTransformerBlock)]
    assert attachment.gates() == {name: {"adapter": 0.5, "lora": 0.5, "prefix": 0.5} for name in names}
    assert json.loads(attachment.metadata()["inlay.gates"]) == attachment.gates()


def test_what_is_reported_follows_the_gates():
    components = tiny()
    attachment = attached(Gated(adapter_width=None, lora_rank=1, prefix_length=2), components)
    for name, parameter in attachment.parameters().items():
        if name == f"unet.{BLOCK}.gates.bias":
            parameter.data = torch.tensor([2.0, -2.0])
    components["unet"].train()
    outputs(components)
    first = attachment.gates()
    assert first[BLOCK] == pytest.approx({"lora": 1 / (1 + math.exp(-2)), "prefix": 1 / (1 + math.exp(2))})
    for name, parameter in attachment.parameters().items():
        if name == f"unet.{BLOCK}.gates.bias":
            parameter.data = torch.tensor([0.0, 0.0])
    outputs(components)
    assert attachment.gates()[BLOCK]["lora"] == pytest.approx(0.99 * first[BLOCK]["lora"] + 0.01 * 0.5)
    with attachment.disabled():
        outputs(components)
    assert attachment.gates()[BLOCK]["lora"] == pytest.approx(0.99 * first[BLOCK]["lora"] + 0.01 * 0.5)


def test_training_moves_gates_apart():
    components = tiny()
    attachment = attached(SMALL, components)
    components["unet"].train()
    optimizer = torch.optim.AdamW(attachment.parameters().values(), lr=1e-2, weight_decay=0)
    losses = []
    for _ in range(15):
        loss = (outputs(components) - 0.3).square().mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.9 * losses[0]
    parts = attachment.gates()[BLOCK]
    assert len({round(value, 4) for value in parts.values()}) == 3


@pytest.mark.parametrize("lora", [Lora(rank=2, targets="everything"), Prefix(length=3)], ids=lambda other: other.name)
def test_the_order_of_it_and_another_method_makes_no_difference(lora: Any):
    results = []
    for first in (True, False):
        components = tiny()
        attachments = {}
        for method in (SMALL, lora) if first else (lora, SMALL):
            attachments[method] = attached(method, components)
        for seed, method in enumerate((SMALL, lora)):
            perturb(attachments[method], seed)
        results.append(outputs(components))
        attachments[lora].detach()
        outputs(components)
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)


def test_a_copy_of_the_base_has_gates_of_its_own():
    components = tiny()
    attachment = attached(SMALL, components)
    perturb(attachment)
    copied, tuned = copy.deepcopy(components), outputs(components)
    perturb(attachment)
    assert not torch.allclose(outputs(components), tuned)
    assert torch.equal(outputs(copied), tuned)


def test_two_of_a_kind_act_together_and_leave_in_any_order():
    components = tiny()
    before, snapshot = outputs(components), Snapshot(components)
    one, two = attached(SMALL, components), attached(SMALL, components)
    perturb(one, 1)
    perturb(two, 2)
    with one.disabled():
        only_two = outputs(components)
    with two.disabled():
        assert not torch.allclose(outputs(components), only_two)
    assert not torch.allclose(outputs(components), only_two)
    one.detach()
    assert torch.equal(outputs(components), only_two)
    two.detach()
    snapshot.assert_same(components)
    assert torch.equal(outputs(components), before)


def test_words_that_are_masked_are_as_words_that_are_not_there():
    components = tiny()
    perturb(attached(SMALL, components))
    noisy, states = noise(2, 4, 8, 8), noise(2, 7, 32, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]] * 2)
    times = torch.tensor([20, 900])
    masked = components["unet"](noisy, times, states, encoder_attention_mask=mask, return_dict=False)[0]
    short = components["unet"](noisy, times, states[:, :4], return_dict=False)[0]
    torch.testing.assert_close(masked, short)


def test_nothing_to_gate_is_refused():
    with pytest.raises(ValidationError, match="are all null; give a size to one at least"):
        Gated(adapter_width=None, lora_rank=None, prefix_length=None)


def test_a_denoiser_without_its_blocks_is_refused():
    with pytest.raises(TargetError, match=r"gated: the denoiser, a UNet2DModel, has no blocks .*BasicTransformerBlock"):
        Gated().attach({"unet": unet_without_attention()})


def test_in_a_transformer_without_text_only_lora_finds_its_place():
    with pytest.raises(TargetError, match="the denoiser has no cross-attention"):
        Gated().attach({"unet": transformer_without_text()})
    dit = transformer_without_text()
    arguments = {"timestep": torch.tensor([5]), "class_labels": torch.tensor([1])}
    base = dit(noise(1, 4, 8, 8), **arguments).sample
    attachment = attached(Gated(adapter_width=None, prefix_length=None), {"unet": dit})
    assert torch.equal(dit(noise(1, 4, 8, 8), **arguments).sample, base)
    perturb(attachment)
    assert not torch.allclose(dit(noise(1, 4, 8, 8), **arguments).sample, base)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        # Over the 16 blocks of widths that add up to 12,480: m (2 d + 1) + d, r (inputs + outputs) over eight
        # projections a block, 2 n d, and a gate of d + 1 for each part.
        (Gated(adapter_width=1, lora_rank=None, prefix_length=None), 24_976 + 12_480 + 12_496),
        (Gated(adapter_width=None, lora_rank=1, prefix_length=None), 199_296 + 12_496),
        (Gated(adapter_width=None, lora_rank=None, prefix_length=1), 24_960 + 12_496),
        (Gated(), 24 * 24_976 + 12_480 + 4 * 199_296 + 10 * 24_960 + 3 * 12_496),
    ],
)
def test_sizes_on_stable_diffusion(method: Gated, count: int):
    settings = BaseSettings(model="sd-v1.4")
    parts = read_architecture(settings, locate(settings, weights=False)).meta()
    assert sum(parameter.numel() for parameter in method.attach(parts).parameters().values()) == count
