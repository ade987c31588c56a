"""C3A's layer against circulant matrices and autograd."""

import pytest
import torch
from peft.tuners.c3a.utils import BlockCircularConvolution, get_circulant_fast
from torch import nn

from inlay.methods import C3A
from inlay.methods.circulant import CircularCorrelation


def case(m: int, n: int, b: int, lead: tuple[int, ...]):
    generator = torch.Generator().manual_seed(m + 10 * n)
    x = torch.randn(*lead, n * b, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(m, n, b, generator=generator, dtype=torch.float64, requires_grad=True)
    return x, w


@pytest.mark.parametrize(("m", "n", "b"), [(2, 2, 4), (3, 1, 5), (1, 4, 3), (2, 3, 1)])
@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_it_is_the_product_with_circulant_blocks_and_so_are_its_gradients(m, n, b, lead):
    x, w = case(m, n, b, lead)
    blocks = torch.stack([w.roll(k, dims=2) for k in range(b)], dim=2)  # [m, n, row k, column]
    matrix = blocks.permute(0, 2, 1, 3).reshape(m * b, n * b)
    product = x @ matrix.T
    torch.testing.assert_close(CircularCorrelation.apply(x, w), product)
    torch.testing.assert_close(matrix, get_circulant_fast(w))  # which PEFT merges
    outward = torch.randn_like(product)
    expected = torch.autograd.grad(product, (x, w), outward)
    found = torch.autograd.grad(CircularCorrelation.apply(x, w), (x, w), outward)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_pefts_own_still_reverses_the_gradient_of_the_inputs():
    """Where this fails, PEFT is mended and the layer of inlay's own can go."""
    x, w = case(2, 2, 4, (5,))
    outward = torch.ones(5, 8, dtype=torch.float64).cumsum(1)
    theirs, ours = (
        torch.autograd.grad(function.apply(x, w), (x, w), outward)
        for function in (BlockCircularConvolution, CircularCorrelation)
    )
    torch.testing.assert_close(theirs[1], ours[1])
    assert not torch.allclose(theirs[0], ours[0], atol=0.1)


def test_a_layer_computes_in_float32_what_the_layer_below_gives_in_half_precision():
    layer = nn.Linear(8, 4).to(torch.bfloat16).requires_grad_(False)
    root = nn.ModuleDict({"to_q": layer})
    attachment = C3A(block_size=4, targets=("to_q",)).attach({"unet": root})
    (kernel,) = attachment.parameters().values()
    kernel.data = torch.randn(kernel.shape)
    x = torch.randn(3, 8).to(torch.bfloat16)
    found = root["to_q"](x)
    assert found.dtype == torch.bfloat16
    expected = layer(x) + (x.float() @ get_circulant_fast(kernel).T / 8).to(torch.bfloat16)
    torch.testing.assert_close(found, expected)
    with attachment.disabled():
        assert torch.equal(root["to_q"](x), layer(x))
