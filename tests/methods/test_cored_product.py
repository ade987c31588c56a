"""LoHa's cores of convolutions against autograd and PEFT."""

import torch
from peft.tuners.loha.layer import Conv2d, make_weight_cp
from torch import nn

from inlay.methods import LoHa
from inlay.methods.cored_product import CoredConv2d

KINDS = ("t1", "w1_a", "w1_b", "t2", "w2_a", "w2_b")


def cored(**settings):
    """Return a wrapped convolution of 6 to 10 channels and its factors, in float64."""
    root = nn.ModuleDict({"conv1": nn.Conv2d(6, 10, 3, padding=1).requires_grad_(False), "to_q": nn.Linear(4, 4)})
    attachment = LoHa(rank=3, alpha=6, targets=("conv1", "to_q"), effective_conv2d=True, **settings).attach(
        {"unet": root}
    )
    root.double()
    factors = [attachment.parameters()[f"unet.conv1.hada_{kind}"] for kind in KINDS]
    generator = torch.Generator().manual_seed(0)
    for factor in factors:
        factor.data = torch.randn(factor.shape, generator=generator, dtype=torch.float64)
    return root, factors


def plain(t1, a1, b1, t2, a2, b2):
    first, second = (torch.einsum("ijkl,ip,jq->pqkl", t, a, b) for t, a, b in ((t1, a1, b1), (t2, a2, b2)))
    return 2 * first * second


def test_the_update_is_pefts_and_its_gradients_are_autograds():
    root, factors = cored()
    assert isinstance(root["conv1"], CoredConv2d)
    assert not isinstance(root["to_q"], Conv2d)
    update = root["conv1"].get_delta_weight("inlay")
    torch.testing.assert_close(update, make_weight_cp(*factors, scale=torch.tensor(2.0)))
    outward = torch.randn_like(update)
    found = torch.autograd.grad(update, factors, outward)
    for one, other in zip(found, torch.autograd.grad(plain(*factors), factors, outward), strict=True):
        torch.testing.assert_close(one, other)


def test_pefts_own_still_mixes_up_the_two_products():
    """Where this fails, PEFT is mended and the layer of inlay's own can go."""
    _, factors = cored()
    outward = torch.ones(10, 6, 3, 3, dtype=torch.float64)
    theirs = torch.autograd.grad(make_weight_cp(*factors, scale=torch.tensor(2.0)), factors, outward)
    ours = torch.autograd.grad(plain(*factors), factors, outward)
    wrong = [kind for kind, one, other in zip(KINDS, theirs, ours, strict=True) if not torch.allclose(one, other)]
    assert wrong == ["w1_a", "w2_a"]


def test_outputs_are_dropped_whole_and_the_others_grow():
    root, factors = cored(rank_dropout=0.5)
    torch.manual_seed(1)
    update = root["conv1"].get_delta_weight("inlay", apply_rank_dropout=True)
    kept = update.flatten(1).any(dim=1)
    assert 0 < kept.sum() < 10
    expected = plain(*factors) * (kept / kept.double().mean())[:, None, None, None]
    torch.testing.assert_close(update, expected, rtol=1e-6, atol=1e-6)
