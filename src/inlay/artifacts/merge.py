"""Several adapter files in one: the weighted sum of their changes, exactly or as a LoRA of a stated rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inlay.artifacts.layers import Difference, LowRank, Update, Updates
from inlay.artifacts.lowrank import Product, combine, total_error, truncate
from inlay.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Source:
    """One file to merge."""

    name: str
    """What messages call it."""
    updates: Updates
    """What it holds."""
    strength: float = 1.0
    """Factor of its effect."""


@dataclass(frozen=True)
class Merged:
    """A LoRA that stands for several files."""

    updates: Updates
    """The LoRA."""
    products: Mapping[str, Product]
    """By layer, with what each lost."""

    @property
    def relative_error(self) -> float:
        """Of all layers taken together."""
        return total_error(list(self.products.values()))


def merge_updates(
    sources: Sequence[Source],
    shapes: Mapping[str, tuple[int, ...]],
    rank: int | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Merged:
    """Return one LoRA for the weighted sum of several files' changes.

    Args:
        sources: at least one.
        shapes: of the weights of all layers that the files change.
        rank: of each layer, truncated by singular values; None for the sum of the files' ranks, which is exact.
        weights: the base's, by layer; DoRA's changes depend on them.

    Raises:
        ArtifactError: a LoRA cannot hold what a file changes, or not without a rank or the base's weights.
    """
    products, layers = {}, {}
    for name in dict.fromkeys(name for source in sources for name in source.updates.layers):
        found = [(source, source.updates.layers[name]) for source in sources if name in source.updates.layers]
        for source, update in found:
            _refuse_what_no_lora_holds(source, name, update, shapes[name], rank, weights)
        if all(_factors(update, 1.0) is not None for _, update in found):
            terms = [_factors(update, source.strength) for source, update in found]
            product = combine([term for term in terms if term is not None], rank)
        else:
            weight = None if weights is None else weights[name]
            total = sum(_change(update, shapes[name], source.strength, weight) for source, update in found)
            product = truncate(total.flatten(1), rank)  # pyright: ignore[reportAttributeAccessIssue]
        products[name] = product
        layers[name] = as_update(product, shapes[name])
    return Merged(Updates(layers), products)


def as_update(product: Product, shape: tuple[int, ...]) -> LowRank:
    """Return a product as the change of a layer whose weight is of ``shape``."""
    up, down = product.up, product.down
    if len(shape) == 4:
        up, down = up[:, :, None, None], down.reshape(-1, *shape[1:])
    return LowRank(up=up, down=down, alpha=float(product.rank))


def _factors(update: Update, strength: float) -> tuple[Tensor, Tensor] | None:
    """Return a change as up [out, r] and down [r, inputs] where it is such a product, else None.

    The strength is shared out between the two by its root, as the scale of a merged file is 1.
    """
    if not isinstance(update, LowRank) or update.mid is not None or update.magnitude is not None:
        return None
    factor = strength * update.scale
    root = math.sqrt(abs(factor))
    return math.copysign(root, factor) * update.up.double().flatten(1), root * update.down.double().flatten(1)


def _change(update: Update, shape: tuple[int, ...], strength: float, weight: Tensor | None) -> Tensor:
    if weight is None:
        return strength * update.delta(shape).double()
    return update.changed(weight, strength).double() - weight.double()


def _refuse_what_no_lora_holds(
    source: Source,
    name: str,
    update: Update,
    shape: tuple[int, ...],
    rank: int | None,
    weights: Mapping[str, Tensor] | None,
) -> None:
    if (isinstance(update, Difference) and update.bias is not None) or len(shape) == 1:
        raise ArtifactError(
            f"{source.name}: a LoRA has no place for its change of {name}, a bias or a norm; merge it into a base: "
            "--base MODEL, and --output names a directory"
        )
    if update.magnitude is not None and weights is None:
        raise ArtifactError(
            f"{source.name}: a DoRA, whose change depends on the base's weights; say which base by --base MODEL"
        )
    if rank is None and _factors(update, 1.0) is None:
        what = "DoRA" if update.magnitude is not None else update.form
        raise ArtifactError(
            f"{source.name}: {name} is a {what}, which no LoRA of small rank stands for exactly; give the rank of the "
            "result by --rank"
        )
