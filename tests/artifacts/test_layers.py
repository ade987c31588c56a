import math

import pytest
import torch
from torch import nn

from inlay.artifacts.layers import Difference, LowRank
from inlay.errors import ArtifactError
from tests.artifacts.specimens import difference, hadamard, kronecker, low_rank, random_tensor

LINEAR, CONV, POINT = (8, 12), (8, 12, 3, 3), (8, 12, 1, 1)


def conv(weight, x):
    return nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


def test_lora_is_two_layers_one_after_the_other():
    update = low_rank(CONV, alpha=6.0)
    x = random_tensor((1, 12, 5, 5), 3)
    detour = 2.0 * nn.functional.conv2d(nn.functional.conv2d(x, update.down, padding=1), update.up)
    torch.testing.assert_close(conv(update.delta(CONV), x), detour)
    torch.testing.assert_close(low_rank(LINEAR).delta(LINEAR), low_rank(LINEAR).up @ low_rank(LINEAR).down)


def test_a_core_is_a_layer_between():
    update = low_rank(CONV, core=True)
    x = random_tensor((1, 12, 5, 5), 3)
    between = nn.functional.conv2d(nn.functional.conv2d(x, update.down), update.mid, padding=1)
    torch.testing.assert_close(conv(update.delta(CONV), x), nn.functional.conv2d(between, update.up))


@pytest.mark.parametrize("shape", [LINEAR, CONV, POINT])
def test_loha_is_an_elementwise_product(shape):
    update = hadamard(shape, alpha=1.5)
    product = (update.w1_a @ update.w1_b) * (update.w2_a @ update.w2_b)
    torch.testing.assert_close(update.delta(shape), 0.5 * product.reshape(shape))


def test_loha_with_cores_by_its_definition():
    update = hadamard(CONV, rank=2, core=True)
    expected = torch.zeros(CONV)
    for p, q in [(p, q) for p in range(8) for q in range(12)]:
        halves = []
        for a, b, t in ((update.w1_a, update.w1_b, update.t1), (update.w2_a, update.w2_b, update.t2)):
            halves.append(sum(t[i, j] * a[i, p] * b[j, q] for i in range(2) for j in range(2)))
        expected[p, q] = halves[0] * halves[1]
    torch.testing.assert_close(update.delta(CONV), expected)


@pytest.mark.parametrize("shape", [LINEAR, CONV])
@pytest.mark.parametrize("parts", [{"second": True}, {}, {"first": False}, {"first": False, "second": True}])
def test_lokr_by_its_definition(shape, parts):
    update = kronecker(shape, alpha=1.5, **parts)
    first = update.w1 if update.w1 is not None else update.w1_a @ update.w1_b
    second = update.w2 if update.w2 is not None else update.w2_a @ update.w2_b
    second = second.reshape(4, 3, *shape[2:])
    scale = 1.0 if update.whole else 0.5
    delta = update.delta(shape)
    for out, inputs in [(0, 0), (5, 7), (7, 11), (3, 4)]:
        expected = scale * first[out // 4, inputs // 3] * second[out % 4, inputs % 3]
        torch.testing.assert_close(delta[out, inputs], expected)


def test_scales():
    assert low_rank(LINEAR).scale == 1.0
    assert low_rank(LINEAR, alpha=1.5).scale == 0.5
    root = low_rank(LINEAR, rank=4, alpha=6.0, rslora=True)
    assert root.scale == 3.0
    assert root.plain_alpha == 12.0
    # Two whole factors have no rank: the scale is 1 whatever alpha says, unless PEFT's rank is stated.
    assert kronecker(LINEAR, second=True, alpha=8.0).scale == 1.0
    assert kronecker(LINEAR, second=True, alpha=8.0, stated_rank=16).scale == 0.5


@pytest.mark.parametrize("axis", ["out", "in"])
@pytest.mark.parametrize("shape", [LINEAR, CONV])
def test_magnitudes_are_the_norms_of_the_changed_weight(axis, shape):
    update = low_rank(shape, dora=axis, alpha=1.0)
    weight = random_tensor(shape, 9)
    changed = update.changed(weight)
    others = [number for number in range(len(shape)) if number != (0 if axis == "out" else 1)]
    norms = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
    torch.testing.assert_close(norms, update.magnitude)
    whole = weight + update.delta(shape)
    cosine = nn.functional.cosine_similarity(changed, whole, dim=1) if axis == "out" else None
    if cosine is not None and len(shape) == 2:
        torch.testing.assert_close(cosine, torch.ones(8))
    half = update.changed(weight, strength=0.5)
    torch.testing.assert_close(half, (weight + changed) / 2)
    torch.testing.assert_close(update.changed(weight, strength=0), weight)


def test_dora_equals_peft():
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    for layer, x in [
        (nn.Linear(12, 8), torch.randn(2, 12)),
        (nn.Conv2d(12, 8, 3, padding=1), torch.randn(2, 12, 5, 5)),
    ]:
        model = nn.Sequential(layer)
        weight = layer.weight.detach().clone()
        inject_adapter_in_model(LoraConfig(r=3, lora_alpha=5, target_modules=["0"], use_dora=True), model)
        wrapped = model[0]
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        update = LowRank(
            down=wrapped.lora_A["default"].weight.detach(),
            up=wrapped.lora_B["default"].weight.detach(),
            alpha=5.0,
            magnitude=wrapped.lora_magnitude_vector["default"].weight.detach().reshape(8, *(1,) * (weight.dim() - 1)),
        )
        after = model(x).detach()
        wrapped.base_layer.weight.data = update.changed(weight)
        wrapped._disable_adapters = True
        torch.testing.assert_close(model(x).detach(), after)


def test_what_does_not_fit_is_refused():
    assert low_rank(LINEAR).fits(LINEAR)
    assert not low_rank(LINEAR).fits((12, 8))
    assert low_rank(LINEAR).fits(POINT)
    assert not low_rank(LINEAR, dora="out").fits((8, 12, 1, 1))
    for update in (low_rank(LINEAR), hadamard(LINEAR), kronecker(LINEAR), difference(LINEAR)):
        with pytest.raises(ArtifactError, match=r"of 8 x 12 does not fit a weight of 8 x 13"):
            update.delta((8, 13))
    assert Difference(bias=torch.ones(8)).delta(LINEAR).abs().sum() == 0
    assert not math.isnan(Difference(bias=torch.ones(8)).changed(torch.zeros(LINEAR)).sum())
