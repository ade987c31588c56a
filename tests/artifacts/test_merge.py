"""Several files in one LoRA, against the explicit sum of their weight deltas."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from inlay.artifacts.layers import Difference, Hadamard, LowRank, Update, Updates
from inlay.artifacts.merge import Source, merge_updates
from inlay.errors import ArtifactError

SHAPES: dict[str, tuple[int, ...]] = {"unet.a": (10, 7), "unet.conv": (6, 4, 3, 3), "unet.norm": (5,)}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lora(name: str, rank: int, seed: int, alpha: float | None = None, rslora: bool = False) -> LowRank:
    outputs, inputs, *window = SHAPES[name]
    return LowRank(
        up=noise(outputs, rank, *(1 for _ in window), seed=seed),
        down=noise(rank, inputs, *window, seed=seed + 50),
        alpha=alpha,
        rslora=rslora,
    )


def source(strength: float = 1.0, /, **layers: Update) -> Source:
    return Source("file", Updates({f"unet.{name}": update for name, update in layers.items()}), strength)


def loha(seed: int) -> Hadamard:
    first, second = noise(10, 2, seed=seed), noise(2, 7, seed=seed + 1)
    return Hadamard(w1_a=first, w1_b=second, w2_a=first + 1, w2_b=second - 1, alpha=1.0)


def explicit(sources: list[Source], name: str) -> Tensor:
    return sum(
        (one.strength * one.updates.layers[name].delta(SHAPES[name]) for one in sources if name in one.updates.layers),
        torch.zeros(SHAPES[name]),
    )


FILES = [
    source(0.7, a=lora("unet.a", 2, seed=1, alpha=1.0), conv=lora("unet.conv", 3, seed=2)),
    source(-0.5, a=lora("unet.a", 3, seed=3, alpha=4.0, rslora=True)),
]


def test_without_a_rank_the_sum_is_exact_and_ranks_add_up():
    merged = merge_updates(FILES, SHAPES)
    assert merged.relative_error == 0
    assert {name: update.rank for name, update in merged.updates.layers.items() if isinstance(update, LowRank)} == {
        "unet.a": 5,
        "unet.conv": 3,
    }
    for name, update in merged.updates.layers.items():
        torch.testing.assert_close(update.delta(SHAPES[name]), explicit(FILES, name), atol=1e-5, rtol=1e-5)


def test_a_rank_that_holds_all_ranks_is_exact_too():
    merged = merge_updates(FILES, SHAPES, rank=5)
    assert merged.relative_error == 0
    assert merged.updates.layers["unet.a"].tensors()["down"].shape == (5, 7)


def test_one_file_at_full_strength_keeps_its_factors_bit_for_bit():
    one = lora("unet.conv", 3, seed=2)
    again = merge_updates([source(conv=one)], SHAPES).updates.layers["unet.conv"]
    assert isinstance(again, LowRank)
    assert torch.equal(again.up, one.up)
    assert torch.equal(again.down, one.down)
    assert again.scale == 1


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_small_rank_is_the_best_one_and_its_error_is_told(rank: int):
    merged = merge_updates(FILES, SHAPES, rank=rank)
    errors, norms = [], []
    for name, update in merged.updates.layers.items():
        wanted = explicit(FILES, name).double().flatten(1)
        u, values, v = torch.linalg.svd(wanted, full_matrices=False)
        best = ((u[:, :rank] * values[:rank]) @ v[:rank]).float()
        found = update.delta(SHAPES[name]).flatten(1)
        torch.testing.assert_close(found, best, atol=1e-4, rtol=1e-4)
        told = merged.products[name]
        assert told.relative_error == pytest.approx(float((wanted - found).norm() / wanted.norm()), abs=1e-5)
        errors.append(float((wanted - found).norm()))
        norms.append(float(wanted.norm()))
    assert merged.relative_error == pytest.approx(math.hypot(*errors) / math.hypot(*norms), abs=1e-5)


def test_other_forms_join_by_their_explicit_deltas():
    files = [source(0.5, a=loha(4)), source(2.0, a=lora("unet.a", 2, seed=1))]
    with pytest.raises(ArtifactError, match=r"file: unet\.a is a LoHa.*give the rank of the result by --rank"):
        merge_updates(files, SHAPES)
    merged = merge_updates(files, SHAPES, rank=7)
    found = merged.updates.layers["unet.a"].delta((10, 7))
    torch.testing.assert_close(found, explicit(files, "unet.a"), atol=1e-4, rtol=1e-4)
    assert merged.relative_error < 1e-6


def test_a_dora_changes_the_base_s_weights_by_what_they_are():
    weight = noise(10, 7, seed=9)
    update = dataclasses.replace(lora("unet.a", 2, seed=1), magnitude=noise(10, 1, seed=8).abs())
    with pytest.raises(ArtifactError, match="a DoRA, whose change depends on the base's weights"):
        merge_updates([source(a=update)], SHAPES, rank=7)
    with pytest.raises(ArtifactError, match=r"unet\.a is a DoRA, which no LoRA of small rank stands for"):
        merge_updates([source(a=update)], SHAPES, weights={"unet.a": weight})
    merged = merge_updates([source(0.5, a=update)], SHAPES, rank=7, weights={"unet.a": weight})
    found = weight + merged.updates.layers["unet.a"].delta((10, 7))
    torch.testing.assert_close(found, update.changed(weight, 0.5), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "update", [Difference(weight=noise(10, 7), bias=noise(10)), Difference(bias=noise(10)), Difference(weight=noise(5))]
)
def test_biases_and_norms_are_refused(update: Difference):
    name = "norm" if update.weight is not None and update.weight.dim() == 1 else "a"
    with pytest.raises(ArtifactError, match=rf"a LoRA has no place for its change of unet\.{name}, a bias or a norm"):
        merge_updates([source(**{name: update})], SHAPES, rank=4)


def test_a_whole_difference_of_a_weight_is_truncated():
    update = Difference(weight=noise(10, 7))
    merged = merge_updates([source(a=update)], SHAPES, rank=7)
    torch.testing.assert_close(merged.updates.layers["unet.a"].delta((10, 7)), update.weight, atol=1e-5, rtol=1e-5)
