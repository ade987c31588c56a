"""Files into a base, against explicit sums on its weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from inlay.artifacts.layers import Difference, LowRank, Updates
from inlay.artifacts.merge import Source
from inlay.errors import ArtifactError
from inlay.run.merge import merge_into
from inlay.run.weights import load_whole, weighted_layers

NAME = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "text_encoder.text_model.encoder.layers.1.self_attn.q_proj"
NORM = "unet.mid_block.attentions.0.transformer_blocks.0.norm1"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lora(seed: int, outputs: int = 64, inputs: int = 32) -> LowRank:
    return LowRank(up=noise(outputs, 2, seed=seed), down=noise(2, inputs, seed=seed + 9), alpha=1.0)


def test_changes_add_up_by_their_strengths(tiny_base):
    base, original = load_whole(tiny_base), load_whole(tiny_base)
    one = Updates({NAME: lora(1), TEXT: lora(2, 32, 32)})
    other = Updates({NAME: dataclasses.replace(lora(3), magnitude=noise(64, 1, seed=4).abs())})
    third = Updates({NORM: Difference(weight=noise(64, seed=5), bias=noise(64, seed=6))})
    folded = merge_into(base, [Source("a", one, 0.7), Source("b", other, -0.5), Source("c", third, 2.0)])
    before, after = weighted_layers(original.components), weighted_layers(base.components)
    weight = before[NAME].weight.detach()
    expected = {
        NAME: weight + 0.7 * lora(1).delta((64, 32)) + other.layers[NAME].changed(weight, -0.5) - weight,
        TEXT: before[TEXT].weight + 0.7 * lora(2, 32, 32).delta((32, 32)),
        NORM: before[NORM].weight + 2 * noise(64, seed=5),
    }
    for name, wanted in expected.items():
        torch.testing.assert_close(after[name].weight.detach(), wanted.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after[NORM].bias.detach(), before[NORM].bias.detach() + 2 * noise(64, seed=6))
    for name in before.keys() - expected.keys():
        assert torch.equal(before[name].weight, after[name].weight), name
    changes = [
        *(after[name].weight.detach() - before[name].weight.detach() for name in expected),
        after[NORM].bias.detach() - before[NORM].bias.detach(),
    ]
    assert folded.layers == 3
    assert folded.change == pytest.approx(float(torch.cat([change.flatten() for change in changes]).norm()), rel=1e-4)
    assert folded.relative_change > 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"unet.nothing": lora(1)}, r"a: does not fit .*there is no layer unet\.nothing"),
        ({NAME: lora(1, 64, 30)}, "has a weight of 64 x 32, and a LoRA for 64 x 30"),
        ({NAME: Difference(bias=noise(64))}, rf"a: changes a bias of {NAME}"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(tiny_base, layers, message):
    base, original = load_whole(tiny_base), load_whole(tiny_base)
    fits = Source("b", Updates({TEXT: lora(2, 32, 32)}))
    with pytest.raises(ArtifactError, match=message):
        merge_into(base, [fits, Source("a", Updates(layers))])
    before, after = weighted_layers(original.components), weighted_layers(base.components)
    assert all(torch.equal(before[name].weight, after[name].weight) for name in before)
