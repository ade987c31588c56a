"""Small models and updates of their layers, for the tests of file formats."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inlay.artifacts.blueprint import Blueprint, layer_shapes
from inlay.artifacts.layers import Difference, Hadamard, Kronecker, LowRank, Update
from tests.tiny import make_tiny_components, make_tiny_xl_components

LAYERS = (
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "unet.up_blocks.1.attentions.1.proj_in",
    "unet.mid_block.resnets.1.conv1",
    "unet.down_blocks.0.downsamplers.0.conv",
    "unet.up_blocks.0.upsamplers.0.conv",
    "unet.up_blocks.1.resnets.0.conv_shortcut",
    "unet.down_blocks.1.resnets.0.time_emb_proj",
    "unet.conv_in",
    "unet.time_embedding.linear_1",
)
"""Layers of the tiny Stable Diffusion 1, of every kind."""
TEXT_LAYERS = (
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    "text_encoder.text_model.encoder.layers.1.self_attn.out_proj",
    "text_encoder.text_model.encoder.layers.1.mlp.fc1",
)


def tiny_blueprint(components: Mapping[str, nn.Module] | None = None, **facts: Any) -> Blueprint:
    return Blueprint("tiny", layer_shapes(components or make_tiny_components()), **facts)


def make_tiny_xl() -> dict[str, Any]:
    """Return a denoiser and two text encoders with everything that sets Stable Diffusion XL apart."""
    return {part: module for part, module in make_tiny_xl_components().items() if part != "vae"}


def xl_inputs() -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Return what the tiny XL's denoiser takes."""
    random = torch.Generator().manual_seed(1)
    added = {"text_embeds": torch.randn(1, 24, generator=random), "time_ids": torch.ones(1, 6)}
    noisy, states = torch.randn(1, 4, 8, 8, generator=random), torch.randn(1, 5, 48, generator=random)
    return noisy, torch.tensor([17]), states, added


def random_tensor(shape: Iterable[int], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (0.3 * torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))).to(dtype)


def low_rank(shape: tuple[int, ...], rank: int = 3, seed: int = 0, dora: str = "", core: bool = False, **facts: Any):
    """Return a LoRA of a weight of ``shape``; ``dora`` is "out", "in" or empty."""
    window = shape[2:]
    single = (1,) * len(window)
    mid = random_tensor((rank, rank, *window), seed + 7) if core else None
    return LowRank(
        down=random_tensor((rank, shape[1], *(single if core else window)), seed),
        up=random_tensor((shape[0], rank, *single), seed + 1),
        mid=mid,
        magnitude=magnitude(shape, dora, seed) if dora else None,
        **facts,
    )


def magnitude(shape: tuple[int, ...], axis: str, seed: int) -> Tensor:
    ones = (1,) * len(shape[2:])
    return 1 + random_tensor((shape[0], 1, *ones) if axis == "out" else (1, shape[1], *ones), seed + 11).abs()


def hadamard(shape: tuple[int, ...], rank: int = 3, seed: int = 0, core: bool = False, **facts: Any) -> Hadamard:
    if core:
        sides = [(rank, shape[0]), (rank, shape[1])] * 2
        cores = {f"t{n}": random_tensor((rank, rank, *shape[2:]), seed + 20 + n) for n in (1, 2)}
    else:
        sides, cores = [(shape[0], rank), (rank, math.prod(shape[1:]))] * 2, {}
    names = ("w1_a", "w1_b", "w2_a", "w2_b")
    tensors = {name: random_tensor(side, seed + n) for n, (name, side) in enumerate(zip(names, sides, strict=True))}
    return Hadamard(**tensors, **cores, **facts)


def kronecker(
    shape: tuple[int, ...],
    sides: tuple[int, int] = (2, 4),
    rank: int = 3,
    seed: int = 0,
    first: bool = True,
    second: bool = False,
    core: bool = False,
    **facts: Any,
) -> Kronecker:
    """Return a LoKr with w1 of ``sides``; ``first`` and ``second`` say which factors are whole."""
    a, b = sides
    c, d, window = shape[0] // a, shape[1] // b, shape[2:]
    tensors = {"w1": (a, b)} if first else {"w1_a": (a, rank), "w1_b": (rank, b)}
    if second:
        tensors |= {"w2": (c, d, *window)}
    elif core:
        tensors |= {"w2_a": (rank, c), "w2_b": (rank, d), "t2": (rank, rank, *window)}
    else:
        tensors |= {"w2_a": (c, rank), "w2_b": (rank, d * math.prod(window))}
    return Kronecker(**{name: random_tensor(side, seed + n) for n, (name, side) in enumerate(tensors.items())}, **facts)


def difference(shape: tuple[int, ...], seed: int = 0, bias: bool = False) -> Difference:
    return Difference(weight=random_tensor(shape, seed), bias=random_tensor(shape[:1], seed + 1) if bias else None)


def changed_copy(components: Mapping[str, nn.Module], layers: Mapping[str, Update]) -> dict[str, Any]:
    """Return copies of a model's parts with the updates in their weights: what any reader must come to."""
    copies = {part: copy.deepcopy(module) for part, module in components.items()}
    for name, update in layers.items():
        part, _, path = name.partition(".")
        inside = dict(copies[part].named_modules())
        layer: Any = inside.get(path, inside.get(path.removeprefix("text_model.")))
        layer.weight.data = update.changed(layer.weight.data)
        if isinstance(update, Difference) and update.bias is not None:
            layer.bias.data += update.bias
    return copies


def same(one: Mapping[str, Update], other: Mapping[str, Update]) -> None:
    """Assert that updates are equal, bit for bit."""
    assert one.keys() == other.keys()
    for name, update in one.items():
        first, second = update.tensors(), other[name].tensors()
        assert type(update) is type(other[name])
        assert first.keys() == second.keys(), name
        for field, value in first.items():
            assert value.dtype == second[field].dtype
            assert torch.equal(value, second[field]), (name, field)
        if not isinstance(update, Difference):
            assert update.scale == other[name].scale, name  # pyright: ignore[reportAttributeAccessIssue]
