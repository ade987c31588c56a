"""Low-rank products against full decompositions and explicit sums."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inlay.artifacts.lowrank import combine, product_norm, total_error, truncate


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (9, 9)])
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_truncation_is_the_best_of_its_rank(shape: tuple[int, int], rank: int):
    matrix = noise(*shape)
    found = truncate(matrix, rank=rank)
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    assert found.up.shape == (shape[0], rank)
    assert found.down.shape == (rank, shape[1])
    torch.testing.assert_close(found.up @ found.down, best.float(), atol=1e-5, rtol=1e-5)
    assert found.norm == pytest.approx(float(matrix.norm()))
    assert found.error == pytest.approx(float(s[rank:].norm()), abs=1e-6)
    assert found.relative_error == pytest.approx(float(s[rank:].norm() / s.norm()), abs=1e-6)


def test_a_matrix_of_low_rank_loses_nothing():
    matrix = noise(30, 3) @ noise(3, 17, seed=1)
    found = truncate(matrix, rank=8)
    assert found.relative_error < 1e-6
    torch.testing.assert_close(found.up @ found.down, matrix, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(found.up).all()
    assert torch.isfinite(found.down).all()


@pytest.mark.parametrize("energy", [0.3, 0.5, 0.9, 0.999, 1.0])
def test_energy_keeps_as_few_components_as_it_can(energy: float):
    matrix = noise(15, 40)
    squares = torch.linalg.svdvals(matrix.double()) ** 2
    shares = squares.cumsum(0) / squares.sum()
    expected = int((shares < energy - 1e-12).sum()) + 1
    found = truncate(matrix, energy=energy)
    assert found.rank == min(expected, 15)
    assert found.relative_error**2 <= 1 - energy + 1e-9


def test_zeros_are_one_component_of_zeros():
    found = truncate(torch.zeros(4, 6), energy=0.9)
    assert found.rank == 1
    assert not (found.up @ found.down).any()
    assert found.relative_error == 0


def test_ranks_that_fit_are_put_side_by_side_bit_for_bit():
    terms = [(noise(10, 2), noise(2, 7, seed=1)), (noise(10, 3, seed=2), noise(3, 7, seed=3))]
    for found in (combine(terms), combine(terms, rank=5)):
        assert torch.equal(found.up, torch.cat([terms[0][0], terms[1][0]], 1))
        assert torch.equal(found.down, torch.cat([terms[0][1], terms[1][1]], 0))
        assert found.error == 0
    assert found.norm == pytest.approx(float(sum(up @ down for up, down in terms).norm()))


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_truncated_sum_is_the_truncation_of_the_explicit_sum(rank: int):
    terms = [(noise(10, 2), noise(2, 7, seed=1)), (noise(10, 3, seed=2), noise(3, 7, seed=3))]
    total = sum(up @ down for up, down in terms)
    found, explicit = combine(terms, rank=rank), truncate(total, rank=rank)
    assert found.rank == rank
    torch.testing.assert_close(found.up @ found.down, explicit.up @ explicit.down, atol=1e-5, rtol=1e-5)
    assert found.error == pytest.approx(explicit.error, abs=1e-5)
    assert found.norm == pytest.approx(explicit.norm)


def test_ranks_beyond_the_layers_size_are_truncated_too():
    terms = [(noise(4, 6, seed=seed), noise(6, 5, seed=seed + 9)) for seed in range(3)]
    total = sum(up @ down for up, down in terms)
    found = combine(terms, rank=8)
    torch.testing.assert_close(found.up @ found.down, total, atol=1e-5, rtol=1e-5)
    assert found.relative_error < 1e-7


def test_the_norm_of_a_product_is_that_of_the_explicit_one():
    up, down = noise(30, 4), noise(4, 50, seed=1)
    assert product_norm(up, down) == pytest.approx(float((up @ down).norm()), rel=1e-5)
    assert product_norm(torch.zeros(3, 1), torch.zeros(1, 3)) == 0


def test_errors_add_up_by_squares():
    parts = [truncate(noise(8, 8, seed=seed), rank=3) for seed in range(3)]
    assert total_error(parts) == pytest.approx(
        sum(part.error**2 for part in parts) ** 0.5 / sum(part.norm**2 for part in parts) ** 0.5
    )
    assert total_error([]) == 0
