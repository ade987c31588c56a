"""Any LoRA as the beginning of another: of every program that is read, of a lower rank and of any scale.

A LoRA of rank r changes a weight by s B A. One of rank R >= r and scale S changes it by the same where the first r rows
of its A are A, the first r columns of its B are (s / S) B, and the other columns of its B are zero, as they began. So a
run that starts from such a file computes at step 0 what the file does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.artifacts.diffusers_lora import loras, name_tensors, tensor_place
from inlay.artifacts.layers import LowRank
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError
from inlay.methods import Lora
from inlay.run.start_updates import outside, read_updates

if TYPE_CHECKING:
    from torch import Tensor


def begin_lora(
    path: Path, base: BaseSettings, method: Lora, fresh: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Mapping[str, str], int]:
    """Return the tensors with which a LoRA begins, the file's header, and how many trained layers the file lacks.

    Args:
        path: the file.
        base: whose layers they are.
        method: the settings of the LoRA that is to be trained.
        fresh: its saved tensors before training.

    Raises:
        ArtifactError: as :func:`read_loras` and :func:`refuse_lora`.
    """
    files, header = read_loras(path, base)
    refuse_lora(files, method, fresh, path)
    trained = sum(name.endswith(".lora_A.weight") for name in fresh)
    return begin_with(files, method, fresh), header, trained - len(files)


def read_loras(path: Path, base: BaseSettings) -> tuple[dict[str, LowRank], Mapping[str, str]]:
    """Return the LoRAs of a file of any format, by layer, and its header.

    Raises:
        ArtifactError: it cannot be read, holds something else, or does not fit the base.
    """
    updates = read_updates(path, base, "lora")
    return loras(updates, "the method lora", str(path)), updates.metadata


def refuse_lora(files: Mapping[str, LowRank], method: Lora, names: Mapping[str, object], path: Path) -> None:
    """Refuse LoRAs that a method cannot begin with.

    Args:
        files: the LoRAs, by layer.
        method: the settings of the LoRA that is to be trained.
        names: of its saved tensors.
        path: the file, for messages.

    Raises:
        ArtifactError: it lacks a layer of the file, has a lower rank, or has DoRA's magnitudes where the file has none
            or the other way round; with the settings that would do.
    """
    ending = ".lora_A.weight"
    wrong = outside(files, {name.removesuffix(ending) for name in names if name.endswith(ending)})
    largest = max(files, key=lambda layer: files[layer].rank)
    if files[largest].rank > method.rank:
        wrong.append(f"has rank {files[largest].rank} at {largest}, more than method.rank={method.rank}")
    measured = sum(one.magnitude is not None for one in files.values())
    if measured not in (0, len(files)):
        wrong.append("has DoRA's magnitudes for some of its layers only, which no run trains")
    elif bool(measured) != method.dora:
        none = "" if measured else "none of "
        wrong.append(f"has {none}DoRA's magnitudes; give method.dora={str(not method.dora).lower()}")
    if method.from_weight:
        wrong.append(f"cannot be continued with method.init={method.init}, which begins at the base's weights")
    if wrong:
        raise ArtifactError(f"{path}: {'; and '.join(wrong)}")


def begin_with(files: Mapping[str, LowRank], method: Lora, fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a LoRA that changes the base as others do.

    Args:
        files: the LoRAs, by layer; :func:`refuse_lora` has passed them.
        method: the settings of the LoRA that is to be trained.
        fresh: its saved tensors before training. Layers that no file has keep them.
    """
    import torch

    scale = LowRank(down=torch.empty(method.rank, 0), up=torch.empty(0), alpha=method.alpha, rslora=method.rslora).scale
    begun = dict(fresh)
    for name, value in name_tensors(files).items():
        place = tensor_place(name)
        assert place is not None
        layer, kind = place
        whole = fresh[name].clone()
        one = files[layer]
        if kind == "lora_down.weight":
            whole[: one.rank] = value.to(whole)
        elif kind == "lora_up.weight":
            whole[:, : one.rank] = value.to(whole) * (one.scale / scale)
        else:
            whole = value.to(whole)
        begun[name] = whole
    return begun
