"""Bridges by hooks against the blocks' data paths spelled out, and under everything that calls a block in odd ways."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from inlay.methods.adapter import PAIRS
from inlay.methods.blocks import Block, find_blocks
from inlay.methods.bridges import CHILD, Bridge, remove
from tests.methods import reference
from tests.methods.small import noise

BATCH, TOKENS, WIDTH, WORDS, CONTEXT, CHANNELS = 2, 5, 16, 3, 12, (8, 12)
TRANSFORMER_PAIRS = [pair for pair in PAIRS if not pair[0].startswith("Res")]
RESIDUAL_PAIRS = [pair for pair in PAIRS if pair[0].startswith("Res")]


def drawn(module: Any, seed: int = 0) -> Any:
    """Give every parameter a random value of a size that keeps outputs of order 1, and freeze it."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 4
        parameter.data = torch.randn(parameter.shape, generator=generator) / fan**0.5
        parameter.requires_grad_(False)
    return module.eval()


def transformer_block(**settings: Any) -> Any:
    return drawn(BasicTransformerBlock(WIDTH, 2, 8, **{"cross_attention_dim": CONTEXT, **settings}))


def only(module: nn.Module) -> Block:
    kind = "residual" if isinstance(module, ResnetBlock2D) else "transformer"
    [found] = find_blocks(nn.Sequential(module), kind)
    return found


class Function(nn.Module):
    """A small nonlinear map between two positions."""

    def __init__(self, c_in: int, c_out: int, seed: int = 1, pixels: bool = False):
        super().__init__()
        shape = (c_out, c_in, 1, 1) if pixels else (c_out, c_in)
        self.weight = nn.Parameter(noise(*shape, seed=seed) / c_in**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        product = nn.functional.conv2d if self.weight.dim() == 4 else nn.functional.linear
        return torch.tanh(product(x, self.weight)) + 0.3


def build(module: nn.Module, *pairs: tuple[str, str]) -> list[tuple[str, str, Function]]:
    """Build bridges into a block; return what the reference needs of them."""
    block, built = only(module), []
    for index, (first, second) in enumerate(pairs):
        sites = block.sites
        function = Function(sites[first].width, sites[second].width, index + 1, first.startswith("Res"))
        Bridge(block, first, second, function)
        built.append((first, second, function))
    return built


X, TEXT = noise(BATCH, TOKENS, WIDTH), noise(BATCH, WORDS, CONTEXT, seed=9)


@pytest.mark.parametrize("pair", TRANSFORMER_PAIRS, ids="->".join)
def test_every_pair_of_a_transformer_block(pair: tuple[str, str]):
    block = transformer_block()
    plain = copy.deepcopy(block)
    built = build(block, pair)
    expected = reference.transformer(plain, X, TEXT, built)
    torch.testing.assert_close(block(X, encoder_hidden_states=TEXT), expected)
    torch.testing.assert_close(block(X, None, TEXT), expected)  # as gradient checkpointing calls it
    torch.testing.assert_close(block(hidden_states=X, encoder_hidden_states=TEXT), expected)
    assert (block(X, None, TEXT) - plain(X, None, TEXT)).abs().mean() > 0.01


@pytest.mark.parametrize("channels", [CHANNELS, (8, 8)])
@pytest.mark.parametrize("pair", RESIDUAL_PAIRS, ids="->".join)
def test_every_pair_of_a_residual_block(pair: tuple[str, str], channels: tuple[int, int]):
    block: Any = ResnetBlock2D(in_channels=channels[0], out_channels=channels[1], temb_channels=6, groups=4)
    plain = copy.deepcopy(drawn(block))
    built = build(block, pair)
    x, time = noise(BATCH, channels[0], 4, 4), noise(BATCH, 6, seed=5)
    torch.testing.assert_close(block(x, time), reference.residual(plain, x, time, built))
    assert (block(x, time) - plain(x, time)).abs().mean() > 0.01


@pytest.mark.parametrize(
    "stack",
    [
        [("CA_in", "CA_in"), ("SA_out", "CA_in"), ("CA_in", "FFN_in")],
        [("CA_in", "FFN_in"), ("SA_out", "CA_in")],  # the first must not see what the second adds to CA_in
        [("SA_in", "SA_in"), ("SA_in", "Trans_out"), ("FFN_in", "FFN_in"), ("FFN_in", "Trans_out")],
        [("Trans_out", "Trans_out"), ("FFN_out", "Trans_out"), ("Trans_out", "Trans_out")],
        [("CA_c", "CA_c"), ("CA_c", "CA_c"), ("CA_out", "FFN_in"), ("CA_out", "FFN_in"), ("FFN_in", "FFN_in")],
        TRANSFORMER_PAIRS,
        TRANSFORMER_PAIRS[::-1],
    ],
)
def test_bridges_act_in_the_order_in_which_they_were_built(stack: list[tuple[str, str]]):
    block = transformer_block()
    plain = copy.deepcopy(block)
    built = build(block, *stack)
    torch.testing.assert_close(block(X, None, TEXT), reference.transformer(plain, X, TEXT, built))


def test_order_shows():
    first, second = transformer_block(), transformer_block()
    functions = [Function(WIDTH, WIDTH, seed) for seed in (1, 2)]
    for block, order in ((first, functions), (second, functions[::-1])):
        for function in order:
            Bridge(only(block), "CA_in", "CA_in", function)
    assert not torch.allclose(first(X, None, TEXT), second(X, None, TEXT), atol=1e-2)


@pytest.mark.parametrize(
    "pair",
    [("SA_in", "SA_in"), ("SA_in", "FFN_in"), ("CA_in", "FFN_in"), ("CA_in", "Trans_out"), ("CA_c", "CA_c"),
     ("CA_out", "FFN_in"), ("FFN_in", "FFN_in"), ("FFN_in", "Trans_out"), ("Trans_out", "Trans_out")],
    ids="->".join,
)  # fmt: skip
def test_pixart_blocks_have_those_pairs_that_gates_do_not_touch(pair: tuple[str, str]):
    block = transformer_block(norm_type="ada_norm_single")
    plain = copy.deepcopy(block)
    built = build(block, pair)
    modulation = noise(BATCH, 6 * WIDTH, seed=4)
    result = block(X, encoder_hidden_states=TEXT, timestep=modulation)
    torch.testing.assert_close(result, reference.pixart(plain, X, TEXT, modulation, built))


def test_dit_blocks_without_cross_attention():
    block = transformer_block(cross_attention_dim=None, norm_type="ada_norm_zero", num_embeds_ada_norm=10)
    plain = copy.deepcopy(block)
    steps, labels = torch.tensor([1, 7]), torch.tensor([2, 3])
    [(_, _, function)] = build(block, ("FFN_in", "Trans_out"))
    seen: list[Tensor] = []
    plain.norm3.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    expected = plain(X, timestep=steps, class_labels=labels)
    torch.testing.assert_close(block(X, timestep=steps, class_labels=labels), expected + function(seen[0]))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("pair", [("FFN_out", "Trans_out"), ("FFN_in", "Trans_out")], ids="->".join)
def test_a_feed_forward_computed_in_pieces(pair: tuple[str, str], dim: int):
    block = transformer_block()
    x = noise(2, 4, WIDTH)
    built = build(block, pair)
    whole = block(x, None, TEXT)
    block.set_chunk_feed_forward(1, dim)
    for _ in range(2):
        torch.testing.assert_close(block(x, None, TEXT), whole)
    assert built


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("pair", PAIRS, ids="->".join)
def test_gradients_under_checkpointing(pair: tuple[str, str], reentrant: bool):
    if pair in RESIDUAL_PAIRS:
        block: Any = drawn(ResnetBlock2D(in_channels=8, out_channels=12, temb_channels=6, groups=4))
        inputs = (noise(BATCH, 8, 4, 4), noise(BATCH, 6, seed=5))
    else:
        block = transformer_block()
        inputs = (X, None, TEXT)
    [(_, _, function)] = build(block, pair)
    gradients = []
    for call in (block, lambda *args: checkpoint(block.__call__, *args, use_reentrant=reentrant)):
        x = inputs[0].clone().requires_grad_()
        call(x, *inputs[1:]).square().sum().backward()
        gradients.append((x.grad, function.weight.grad))
        function.weight.grad = None
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


def test_recomputation_that_breaks_off_leaves_nothing_behind():
    block = transformer_block()
    build(block, ("SA_in", "Trans_out"), ("FFN_in", "FFN_in"))
    x = X.clone().requires_grad_()
    calls = []
    block.ff.register_forward_hook(lambda *_: calls.append(1))
    checkpoint(block.__call__, x, None, TEXT, use_reentrant=False).sum().backward()
    bridges = block.get_submodule(CHILD)
    assert bridges._read == {}
    assert bridges._stream == {}


def test_a_failed_call_leaves_nothing_behind():
    block = transformer_block()
    build(block, ("SA_in", "Trans_out"))
    with pytest.raises(RuntimeError):
        block(X, None, TEXT[..., :-1])
    assert block.get_submodule(CHILD)._read == {}


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pair", TRANSFORMER_PAIRS, ids="->".join)
def test_mixed_precision_keeps_the_tensors_precision(pair: tuple[str, str], base: torch.dtype):
    block = transformer_block()
    expected_block = copy.deepcopy(block)
    built = build(block, pair)
    expected = reference.transformer(expected_block, X, TEXT, built)
    for parameter in block.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(base)
    with torch.autocast("cpu", torch.bfloat16):
        plain = copy.deepcopy(block)
        remove_all(plain)
        result = block(X.to(base), None, TEXT.to(base))
        assert result.dtype == plain(X.to(base), None, TEXT.to(base)).dtype
    torch.testing.assert_close(result.float(), expected, atol=0.15, rtol=0.05)
    result.float().sum().backward()
    assert built[0][2].weight.grad is not None
    assert built[0][2].weight.grad.dtype == torch.float32


@pytest.mark.parametrize("pair", TRANSFORMER_PAIRS, ids="->".join)
def test_a_block_in_half_precision_without_autocast(pair: tuple[str, str]):
    block = transformer_block().to(torch.bfloat16)
    build(block, pair)
    assert block(X.bfloat16(), None, TEXT.bfloat16()).dtype == torch.bfloat16


def remove_all(block: nn.Module) -> None:
    while CHILD in dict(block.named_children()):
        remove(block, block.get_submodule(CHILD).built[0])  # pyright: ignore[reportArgumentType,reportIndexIssue]


def test_a_copy_of_a_block_has_its_own_bridges():
    block = transformer_block()
    build(block, ("SA_in", "SA_in"), ("CA_in", "Trans_out"))
    twin = copy.deepcopy(block)
    assert torch.equal(twin(X, None, TEXT), block(X, None, TEXT))
    expected = block(X, None, TEXT)
    for parameter in twin.get_submodule(CHILD).parameters():
        parameter.data.zero_()
    assert torch.equal(block(X, None, TEXT), expected)
    assert not torch.equal(twin(X, None, TEXT), expected)


def test_removing_restores_the_block_and_frees_memory():
    block = transformer_block()
    before = block(X, None, TEXT)
    names = [name for name, _ in block.named_modules()]
    built = build(block, *TRANSFORMER_PAIRS)
    held = [weakref.ref(function.weight) for _, _, function in built]
    bridges = list(block.get_submodule(CHILD).built)
    for bridge in bridges[::2] + bridges[1::2]:
        remove(block, bridge)
    del built, bridges, bridge
    gc.collect()
    assert [reference() for reference in held] == [None] * len(held)
    assert [name for name, _ in block.named_modules()] == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())
    assert not any(module._forward_hooks_always_called for module in block.modules())
    assert not any(module._forward_pre_hooks_with_kwargs for module in block.modules())
    assert torch.equal(block(X, None, TEXT), before)


def test_removing_one_leaves_the_others():
    block, other = transformer_block(), transformer_block()
    built = build(block, ("SA_in", "SA_in"), ("CA_in", "CA_in"), ("CA_out", "FFN_in"))
    remove(block, block.get_submodule(CHILD).built[1])
    expected = reference.transformer(other, X, TEXT, [built[0], built[2]])
    torch.testing.assert_close(block(X, None, TEXT), expected)


class Around(nn.Module):
    """A model with one block, as a denoiser calls it."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        return 2 * self.block(x + 1, attention_mask=None, encoder_hidden_states=text)


def test_a_compiled_model_computes_the_same_and_notices_the_switch():
    model = Around(transformer_block())
    before = model(X, TEXT)
    pairs = [("SA_in", "SA_in"), ("CA_in", "FFN_in"), ("FFN_out", "Trans_out"), ("CA_c", "CA_c")]
    built = build(model.block, *pairs)
    expected = model(X, TEXT)
    expected.square().sum().backward()
    gradients = [function.weight.grad for _, _, function in built]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for function in (function for _, _, function in built):
        function.weight.grad = None
    result = compiled(X, TEXT)
    result.square().sum().backward()
    torch.testing.assert_close(result, expected)
    for (_, _, function), gradient in zip(built, gradients, strict=True):
        torch.testing.assert_close(function.weight.grad, gradient)
    for bridge in model.block.get_submodule(CHILD).built:
        bridge.enabled = False
    torch.testing.assert_close(compiled(X, TEXT), before)
    torch._dynamo.reset()
