"""What prefix, bitfit and hypernetwork share: taps that stay in place whatever is done to the layers around them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from inlay.methods import BitFit, Full, Hypernetwork, Lora, Method, Prefix
from tests.contracts.bases import Snapshot, outputs, perturb, tiny

METHODS = [BitFit(scope="all", norms=True), Prefix(length=2), Hypernetwork(widths="all", layer_norm=True)]
each = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@each
@pytest.mark.parametrize("lora", [Lora(rank=2, targets="everything"), Lora(rank=2, targets="everything", dora=True)])
def test_the_order_of_it_and_a_lora_makes_no_difference(method: Method, lora: Lora):
    results = []
    for first in (True, False):
        components = tiny()
        attachments = {}
        for each_method in (method, lora) if first else (lora, method):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                attachments[each_method] = each_method.attach(components)
            outputs(components)
        for seed, attachment in enumerate((attachments[method], attachments[lora])):
            perturb(attachment, seed)
        results.append(outputs(components))
        with attachments[lora].disabled():
            alone = outputs(components)
        attachments[lora].detach()
        assert torch.equal(outputs(components), alone)
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)


@each
def test_two_of_a_kind_act_together_and_leave_in_any_order(method: Method):
    components = tiny()
    before, snapshot = outputs(components), Snapshot(components)
    one, two = method.attach(components), method.attach(components)
    perturb(one, 1)
    perturb(two, 2)
    with two.disabled():
        only_one = outputs(components)
    with one.disabled():
        only_two = outputs(components)
    assert not torch.allclose(outputs(components), only_one)
    one.detach()
    assert torch.equal(outputs(components), only_two)
    two.detach()
    snapshot.assert_same(components)
    assert torch.equal(outputs(components), before)


@each
def test_a_copy_of_the_base_has_taps_of_its_own(method: Method):
    components = tiny()
    before = outputs(components)
    attachment = method.attach(components)
    perturb(attachment)
    copied, tuned = copy.deepcopy(components), outputs(components)
    with attachment.disabled():
        assert torch.equal(outputs(copied), tuned)
    perturb(attachment)
    assert torch.equal(outputs(copied), tuned)
    attachment.detach()
    assert torch.equal(outputs(copied), tuned)
    assert torch.equal(outputs(components), before)


@each
def test_no_method_takes_its_layers_for_the_bases(method: Method):
    components = tiny()
    plain = {
        other: [tuple(p.shape) for p in other.attach(tiny()).parameters().values()]
        for other in (Full(), Lora(targets="everything"), BitFit(scope="all", norms=True))
    }
    attachment = method.attach(components)
    for other, shapes in plain.items():
        second = other.attach(components)
        assert [tuple(p.shape) for p in second.parameters().values()] == shapes
        second.detach()
    assert all(parameter.requires_grad for parameter in attachment.parameters().values())


@each
def test_the_weights_go_where_the_base_goes(method: Method):
    components = tiny()
    attachment = method.attach(components)
    components["unet"].to("meta")
    assert {parameter.device.type for parameter in attachment.parameters().values()} == {"meta"}


def test_hooks_are_gone_from_a_layer_that_was_wrapped_in_between():
    components = tiny()
    attachment = Hypernetwork().attach(components)
    layer: nn.Module = components["unet"].mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    assert len(layer._forward_pre_hooks) == 1
    lora = Lora(rank=2).attach(components)
    outputs(components)
    assert len(layer._forward_pre_hooks) == 0
    lora.detach()
    outputs(components)
    assert len(layer._forward_pre_hooks) == 1
    attachment.detach()
    assert len(layer._forward_pre_hooks) == 0
