"""Between the tensors of one layer, under LyCORIS' and kohya's names, and what they say (see ``layers.py``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inlay.artifacts.layers import Difference, Hadamard, Kronecker, LowRank, Scaled, Update
from inlay.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

NAMES: dict[type[Update], dict[str, str]] = {
    LowRank: {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"},
    Hadamard: {field: f"hada_{field}" for field in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    Kronecker: {field: f"lokr_{field}" for field in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    Difference: {"weight": "diff", "bias": "diff_b"},
}
"""What files call the tensors of each form, by the fields of its class."""
ALPHA = "alpha"
MAGNITUDE = "dora_scale"
NORM_NAMES = {"w_norm": "diff", "b_norm": "diff_b"}
"""LyCORIS' names for the differences of a norm's weight and bias, and for those of other layers."""
FORM_OF = {name: form for form, names in NAMES.items() for name in names.values()}
COMPLETE: dict[type[Update], tuple[set[str], ...]] = {
    LowRank: ({"down", "up"}, {"down", "up", "mid"}),
    Hadamard: ({"w1_a", "w1_b", "w2_a", "w2_b"}, {"w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"}),
    Kronecker: tuple(
        first | second
        for first in ({"w1"}, {"w1_a", "w1_b"})
        for second in ({"w2"}, {"w2_a", "w2_b"}, {"w2_a", "w2_b", "t2"})
    ),
    Difference: ({"weight"}, {"bias"}, {"weight", "bias"}),
}
"""Which fields together make a form."""


def is_tensor_name(name: str) -> bool:
    """Whether this is what a tensor of a layer is called in files of this kind."""
    return name in FORM_OF or name in NORM_NAMES or name in (ALPHA, MAGNITUDE)


def assemble(tensors: Mapping[str, Tensor], where: str, **facts: Any) -> Update:
    """Return what the tensors of one layer say.

    Args:
        tensors: by their names in NAMES, `alpha` and `dora_scale`.
        where: file and layer, for messages.
        facts: fields that the file states elsewhere, such as `rslora` and `alpha`.

    Raises:
        ArtifactError: tensors are missing, are of two forms, or have shapes that do not belong together.
    """
    named = {NORM_NAMES.get(name, name): value for name, value in tensors.items()}
    magnitude, alpha = named.pop(MAGNITUDE, None), named.pop(ALPHA, None)
    forms = {FORM_OF[name] for name in named}
    if len(forms) != 1:
        found = " and ".join(sorted(form.form for form in forms)) or "only alpha or magnitudes"
        raise ArtifactError(f"{where}: holds {found}; a layer has the tensors of one form")
    (form,) = forms
    fields = {field: named[name] for field, name in NAMES[form].items() if name in named}
    if set(fields) not in COMPLETE[form]:
        raise ArtifactError(f"{where}: {', '.join(sorted(named))} do not make a whole {form.form}")
    given: dict[str, Any] = {**fields, **facts}
    if magnitude is not None:
        given["magnitude"] = magnitude
    if issubclass(form, Scaled):
        if alpha is not None:
            given["alpha"] = _number(alpha, where)
    else:
        given.pop("alpha", None)
        given.pop("rslora", None)
    update = form(**given)
    _check_ranks(update, where)
    return update


def disassemble(update: Update) -> dict[str, Tensor]:
    """Return the tensors of an update by their names in NAMES and `dora_scale`, without alpha."""
    tensors = update.tensors()
    named = {NAMES[type(update)][field]: value for field, value in tensors.items() if field != "magnitude"}
    return named if update.magnitude is None else {**named, MAGNITUDE: update.magnitude}


def alpha_tensor(value: float, like: Tensor) -> Tensor:
    """Return alpha as a scalar tensor: in the precision of the layer's tensors, or in the least that holds it."""
    import torch

    for dtype in (like.dtype, torch.float32):
        tensor = torch.tensor(value, dtype=dtype)
        if tensor.item() == value:
            return tensor
    return torch.tensor(value, dtype=torch.float64)


def _number(alpha: Tensor, where: str) -> float:
    value = alpha.item() if alpha.numel() == 1 else math.nan
    if not math.isfinite(value) or value <= 0:
        raise ArtifactError(f"{where}: alpha is {alpha.tolist()}; it must be one number above 0")
    return float(value)


def _check_ranks(update: Update, where: str) -> None:
    """Refuse factors that cannot be multiplied."""
    match update:
        case LowRank():
            inner = [update.up.shape[1:2], update.down.shape[:1]]
            cores = [] if update.mid is None else [update.mid.shape[:2]]
        case Hadamard():
            axis = 1 if update.t1 is None else 0
            inner = [update.w1_a.shape[axis : axis + 1], update.w1_b.shape[:1]]
            inner += [update.w2_a.shape[axis : axis + 1], update.w2_b.shape[:1]]
            cores = [core.shape[:2] for core in (update.t1, update.t2) if core is not None]
        case Kronecker():
            inner, cores = [], [] if update.t2 is None else [update.t2.shape[:2]]
            for a, b, core in ((update.w1_a, update.w1_b, None), (update.w2_a, update.w2_b, update.t2)):
                if a is not None and b is not None:
                    axis = 1 if core is None else 0
                    inner += [a.shape[axis : axis + 1], b.shape[:1]]
        case _:
            return
    # Each side of a LoKr has the same rank; so have the factors of the other forms.
    ranks = {tuple(shape) for shape in inner} | {(side,) for core in cores for side in core}
    if len(ranks) > 1:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in update.tensors().items())
        raise ArtifactError(f"{where}: the ranks of its factors differ: {shapes}")
