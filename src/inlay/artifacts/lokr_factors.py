"""How PEFT divides a layer's sides for LoKr: its files say it by settings, from which the shapes must follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from inlay.artifacts.blueprint import some
from inlay.artifacts.layers import Kronecker
from inlay.errors import ArtifactError


@dataclass(frozen=True)
class Settings:
    """PEFT's settings that decide shapes; fields as in its ``LoKrConfig``."""

    decompose_factor: int
    decompose_both: bool
    use_effective_conv2d: bool


def peft_settings(
    layers: Mapping[str, Kronecker], shapes: Mapping[str, tuple[int, ...]], source: str
) -> tuple[dict[str, Kronecker], dict[str, Any]]:
    """Return LoKr with the ranks that PEFT needs stated, and settings under which PEFT makes tensors of their shapes.

    Args:
        layers: by name.
        shapes: of the weights of these layers.
        source: what to call the file in messages.

    Raises:
        ArtifactError: there are no such settings, with the layers that do not fit the best.
    """
    ranked = {name: _with_rank(update, shapes[name]) for name, update in layers.items()}
    sides = {side for name, update in layers.items() for side in _division(update, shapes[name])}
    both = any(update.w1_b is not None for update in layers.values())
    core = any(update.t2 is not None for update in layers.values())
    best: list[str] | None = None
    for factor in (-1, *sorted(sides)):
        settings = Settings(factor, both, core)
        wrong = [name for name, update in ranked.items() if not _follows(update, shapes[name], settings)]
        if not wrong:
            return ranked, dict(vars(settings))
        if best is None or len(wrong) < len(best):
            best = wrong
    raise ArtifactError(
        f"{source}: PEFT cannot hold this: no decompose_factor gives these layers the factors that they have: "
        f"{some(best or [])}"
    )


def _with_rank(update: Kronecker, shape: tuple[int, ...]) -> Kronecker:
    """State a rank where there is none: one at which PEFT keeps both factors whole, with a scale of 1."""
    if not update.whole or update.stated_rank is not None:
        return update
    enough = math.ceil(max(_division(update, shape)) / 2)
    # LyCORIS notes the rank that was asked for as alpha.
    noted = update.alpha is not None and update.alpha == int(update.alpha) and update.alpha >= enough
    rank = int(update.alpha) if noted and update.alpha is not None else enough
    return replace(update, alpha=float(rank), stated_rank=rank)


def _division(update: Kronecker, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return (a, b, c, d) with outputs = a c and input channels = b d."""
    first = update.w1 if update.w1 is not None else None
    a = first.shape[0] if first is not None else update.w1_a.shape[0]  # pyright: ignore[reportOptionalMemberAccess]
    b = first.shape[1] if first is not None else update.w1_b.shape[1]  # pyright: ignore[reportOptionalMemberAccess]
    return a, b, shape[0] // a, shape[1] // b


def _follows(update: Kronecker, shape: tuple[int, ...], settings: Settings) -> bool:
    """Whether PEFT would make tensors of these shapes (peft 0.21, ``LoKrLayer.update_layer``)."""
    a, b, c, d = _division(update, shape)
    outputs = factorization(shape[0], settings.decompose_factor)
    inputs = factorization(shape[1], settings.decompose_factor)
    window = shape[2:]
    whole_first = not (settings.decompose_both and update.rank < max(a, b) / 2)
    whole_second = update.rank >= max(c, d) / 2
    core = settings.use_effective_conv2d and any(side > 1 for side in window)
    return (
        (outputs, inputs) == ((a, c), (b, d))
        and whole_first == (update.w1 is not None)
        and whole_second == (update.w2 is not None)
        and (update.t2 is not None) == (core and not whole_second)
        and (update.w2 is None or tuple(update.w2.shape) == (c, d, *window))
        and all(factor is None or factor.shape[0] == update.rank for factor in (update.w1_b, update.w2_b))
    )


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """Divide a dimension in two as LyCORIS and PEFT do.

    Args:
        dimension: a layer's outputs or input channels.
        factor: what one of the two should be near, not above it; -1 for near the root.

    Returns:
        Two numbers whose product is the dimension; the smaller first, unless the first is the factor itself.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    limit = dimension if factor == -1 else factor
    divisors = [n for n in range(1, math.isqrt(dimension) + 1) if dimension % n == 0 and n <= limit]
    small = max(divisors, default=1)
    return small, dimension // small
