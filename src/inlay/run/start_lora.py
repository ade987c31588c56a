"""Any LoRA as the beginning of another: of every program that is read, of a lower rank and of any scale.

A LoRA of rank r changes a weight by s B A. One of rank R >= r and scale S changes it by the same where the first r rows
of its A are A, the first r columns of its B are (s / S) B, and the other columns of its B are zero, as they began. So a
run that starts from such a file computes at step 0 what the file does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.artifacts.blueprint import some
from inlay.artifacts.diffusers_lora import loras, name_tensors, tensor_place
from inlay.artifacts.formats import FORMATS, recognise
from inlay.artifacts.layers import LowRank, Updates
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError
from inlay.methods import Lora
from inlay.methods.targets import PRESETS, TEXT_TARGETS
from inlay.run.blueprints import base_blueprint

if TYPE_CHECKING:
    from torch import Tensor


def read_updates(path: Path, base: BaseSettings, method: str) -> Updates:
    """Return the changes of layers that a file of any format holds.

    Raises:
        ArtifactError: it cannot be read, holds something else than the method's, or does not fit the base.
    """
    one = FORMATS[recognise(path)]
    contents = one.read(path, [base_blueprint(base)])
    if not isinstance(contents, Updates):
        raise ArtifactError(f"{path}: holds {one.contents}, but the method is {method}")
    return contents


def read_loras(path: Path, base: BaseSettings) -> tuple[dict[str, LowRank], Mapping[str, str]]:
    """Return the LoRAs of a file of any format, by layer, and its header.

    Raises:
        ArtifactError: it cannot be read, holds something else, or does not fit the base.
    """
    updates = read_updates(path, base, "lora")
    return loras(updates, "the method lora", str(path)), updates.metadata


def outside(layers: Collection[str], trained: Collection[str]) -> list[str]:
    """Return a complaint of the layers of a file that a run does not train, with settings that do; or nothing."""
    found = [layer for layer in layers if layer not in trained]
    if not found:
        return []
    parts = {layer.startswith("unet.") for layer in found}
    advice = _advice([layer for layer in layers if layer.startswith("unet.") in parts])
    return [f"changes {len(found)} layers that the run does not train ({some(found)}){advice}"]


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


def _advice(layers: Sequence[str]) -> str:
    """Return the settings with which layers are trained, where presets can say it."""
    denoiser = [layer for layer in layers if layer.startswith("unet.")]
    text = [layer for layer in layers if not layer.startswith("unet.")]
    settings = []
    if denoiser:
        settings.append(f"method.targets={_preset(PRESETS, denoiser)}")
    if text:
        preset = _preset(TEXT_TARGETS, text)
        if preset is None:
            return ""
        settings.append(f"method.text_encoder={'true' if preset == 'attention' else preset}")
    return f"; {' and '.join(settings)} trains them"


def _preset(presets: Mapping[str, str], layers: list[str]) -> str | None:
    """Return the first preset that has all layers, None where there is none."""
    return next(
        (name for name, ends in presets.items() if all(re.search(rf"\.({ends})$", layer) for layer in layers)), None
    )
