"""Any LoHa or LoKr as the beginning of another: of every program that is read, of another scale, of a lower rank.

Factors of rank r become ones of rank R >= r that multiply to the same: what is new of one of two factors is zero, of
the other as random as at the beginning, and a core between them has zeros where new ranks of the random one meet old
ranks of the other. What files scale by alpha / r in their own way goes into one factor. So step 0 computes what the
file does, and the new ranks can be learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.artifacts.blueprint import some
from inlay.artifacts.forms import disassemble
from inlay.artifacts.layers import Hadamard, Kronecker, Scaled
from inlay.artifacts.lokr_factors import peft_settings
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError
from inlay.methods import LoHa, LoKr
from inlay.run.blueprints import base_blueprint
from inlay.run.start_updates import outside, read_updates

if TYPE_CHECKING:
    from torch import Tensor

CORES = ("hada_t1", "hada_t2", "lokr_t2")
SILENT = ("hada_w1_a", "hada_w2_b", "lokr_w1_a", "lokr_w2_a")
"""The factor of each product whose new ranks are zero. PEFT lets the `_b` of LoHa's second product begin at zero, and
were its `_a` zero too, neither would ever get a gradient."""


def begin_factors(
    path: Path, base: BaseSettings, method: LoHa | LoKr, fresh: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Mapping[str, str], int]:
    """Return the tensors with which a method begins, the file's header, and how many trained layers the file lacks.

    Args:
        path: the file.
        base: whose layers they are.
        method: the settings of what is to be trained.
        fresh: its saved tensors before training.

    Raises:
        ArtifactError: as :func:`read_factors` and :func:`refuse_factors`.
    """
    files, header = read_factors(path, base, method)
    refuse_factors(files, method, fresh, path, base)
    trained = {name.rpartition(".")[0] for name in fresh}
    return begin_with_factors(files, method, fresh), header, len(trained) - len(files)


def read_factors(path: Path, base: BaseSettings, method: LoHa | LoKr) -> tuple[dict[str, Scaled], Mapping[str, str]]:
    """Return the LoHa or LoKr of a file of any format, by layer, and its header.

    Raises:
        ArtifactError: it cannot be read, holds something else, or does not fit the base.
    """
    updates = read_updates(path, base, method.name)
    wanted = Hadamard if isinstance(method, LoHa) else Kronecker
    layers: dict[str, Scaled] = {layer: one for layer, one in updates.layers.items() if isinstance(one, wanted)}
    others = [f"{layer} is a {one.form}" for layer, one in updates.layers.items() if layer not in layers]
    if others:
        raise ArtifactError(f"{path}: the method {method.name} cannot hold this: {some(others)}")
    measured = [layer for layer, one in layers.items() if one.magnitude is not None]
    if measured:
        raise ArtifactError(f"{path}: has DoRA's magnitudes ({some(measured)}), which {method.name} does not train")
    return layers, updates.metadata


def refuse_factors(
    files: Mapping[str, Scaled], method: LoHa | LoKr, fresh: Mapping[str, Tensor], path: Path, base: BaseSettings
) -> None:
    """Refuse factors that a method cannot begin with.

    Args:
        files: what a file holds, by layer.
        method: the settings of what is to be trained.
        fresh: its saved tensors before training.
        path: the file, for messages.
        base: whose layers they are.

    Raises:
        ArtifactError: it lacks a layer of the file, or has factors of other shapes; with the settings that would do.
    """
    trained: dict[str, dict[str, Tensor]] = {}
    for name, value in fresh.items():
        layer, _, kind = name.rpartition(".")
        trained.setdefault(layer, {})[kind] = value
    wrong = outside(files, trained)
    unlike = [layer for layer in files if layer in trained and not _fits(files[layer], trained[layer])]
    if unlike:
        named = ", ".join(f"{name} {tuple(value.shape)}" for name, value in disassemble(files[unlike[0]]).items())
        advice = _loha(files) if isinstance(method, LoHa) else _lokr(files, base, path)
        wrong.append(f"has other factors than the run at {some(unlike)}: {named}; {advice}")
    if wrong:
        raise ArtifactError(f"{path}: {'; and '.join(wrong)}")


def begin_with_factors(
    files: Mapping[str, Scaled], method: LoHa | LoKr, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a method that changes the base as a file does.

    Args:
        files: what it holds, by layer; :func:`refuse_factors` has passed it.
        method: the settings of what is to be trained.
        fresh: its saved tensors before training. Layers that the file lacks keep them.
    """
    scale = 1 if method.alpha is None else method.alpha / method.rank
    begun = dict(fresh)
    for layer, update in files.items():
        tensors = disassemble(update)
        first = next(iter(tensors))  # a factor of every product
        for kind, value in tensors.items():
            name = f"{layer}.{kind}"
            begun[name] = _within(fresh[name], value.to(fresh[name]), kind)
            if kind == first:
                begun[name] = begun[name] * (update.scale / scale)
    return begun


def _fits(update: Scaled, ours: Mapping[str, Tensor]) -> bool:
    """Whether a file's factors are those of a layer that is trained, but for lower ranks."""
    tensors = disassemble(update)
    if tensors.keys() != ours.keys():
        return False
    return all(
        value.dim() == ours[kind].dim()
        and all(
            theirs == own or (axis in _rank_axes(kind, tensors) and theirs < own)
            for axis, (theirs, own) in enumerate(zip(value.shape, ours[kind].shape, strict=True))
        )
        for kind, value in tensors.items()
    )


def _rank_axes(kind: str, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the axes of a factor along which the rank runs."""
    if kind in CORES:
        return 0, 1
    cored = kind.replace("w", "t")[:-2] in tensors
    return {"_a": (0,) if cored else (1,), "_b": (0,)}.get(kind[-2:], ())


def _within(fresh: Tensor, value: Tensor, kind: str) -> Tensor:
    """Return a factor that acts as `value` does and has the shape of a fresh one."""
    whole = fresh.clone()
    rank = value.shape[0]
    if kind in SILENT:
        whole.zero_()
    elif kind == "hada_t2":
        whole[rank:, :rank] = 0
    elif kind in CORES:
        whole[:rank, rank:] = 0
    whole[tuple(slice(side) for side in value.shape)] = value
    return whole


def _loha(files: Mapping[str, Scaled]) -> str:
    cored = any(isinstance(one, Hadamard) and one.t1 is not None for one in files.values())
    rank = max(one.rank for one in files.values())
    return f"method.rank={rank} or more and method.effective_conv2d={str(cored).lower()} have them"


def _lokr(files: Mapping[str, Scaled], base: BaseSettings, path: Path) -> str:
    shapes = base_blueprint(base).shapes
    ranked, settings = peft_settings(
        {layer: one for layer, one in files.items() if isinstance(one, Kronecker)}, shapes, str(path)
    )
    ranks = [one.rank for one in ranked.values() if not one.whole] or [one.rank for one in ranked.values()]
    given = {"rank": max(ranks), **settings}
    if given["decompose_factor"] == -1:
        del given["decompose_factor"]
    given["effective_conv2d"] = given.pop("use_effective_conv2d")
    return f"{', '.join(f'method.{name}={str(value).lower()}' for name, value in given.items())} have them"
