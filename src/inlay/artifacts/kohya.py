"""LoRA as kohya's sd-scripts save it, which A1111, Forge and ComfyUI read, and its superset by LyCORIS.

One layer is `<name>.lora_down.weight`, `.lora_up.weight` and `.alpha`, a scalar; see :mod:`inlay.artifacts.kohya_names`
for the name and :mod:`inlay.artifacts.forms` for LyCORIS' tensors. `dora_scale` in either is what these programs call
DoRA's magnitudes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.artifacts.blueprint import Blueprint, fitting, some
from inlay.artifacts.forms import ALPHA, MAGNITUDE, alpha_tensor, assemble, disassemble, is_tensor_name
from inlay.artifacts.kohya_metadata import kohya_metadata
from inlay.artifacts.kohya_names import PREFIXES, STANDALONE, kohya_names, layers_by_name
from inlay.artifacts.layers import Difference, Kronecker, LowRank, Scaled, Update, Updates
from inlay.artifacts.state import glance, read_state
from inlay.errors import ArtifactError
from inlay.files import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = ("lora_down.weight", "lora_up.weight", ALPHA, MAGNITUDE)
"""Tensors that programs know which read LoRA alone."""


def recognises_kohya(path: Path) -> bool:
    """Whether a file has kohya's names and nothing but LoRA in it."""
    endings = _endings(path)
    return bool(endings) and endings <= {*PLAIN} and not _standalone(path)


def recognises_lycoris(path: Path) -> bool:
    """Whether a file has kohya's names, or LyCORIS' own, and more than LoRA in it."""
    endings = _endings(path)
    return bool(endings) and (not endings <= {*PLAIN} or _standalone(path))


def read(path: Path, blueprints: Sequence[Blueprint]) -> Updates:
    """Read a file of kohya's or of LyCORIS'.

    Raises:
        ArtifactError: it holds tensors or layers that are not known, is incomplete, or fits none of the models.
    """
    tensors, metadata = read_state(path)
    found: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, value in tensors.items():
        name, _, ending = key.partition(".")
        if name.startswith((*PREFIXES, STANDALONE)) and is_tensor_name(ending):
            found.setdefault(name, {})[ending] = value
        else:
            unknown.append(key)
    if unknown:
        raise ArtifactError(f"{path}: not tensors of LoRA, LoHa, LoKr or full differences: {some(unknown)}")
    updates = {name: assemble(named, f"{path}: {name}") for name, named in found.items()}
    return Updates(_choose(updates, blueprints, str(path)), metadata)


def write_kohya(path: Path, updates: Updates, blueprints: Sequence[Blueprint]) -> Path:
    """Write LoRA for programs that read kohya's files.

    Raises:
        ArtifactError: a layer holds what the format cannot, or several models could be meant; nothing has been written.
    """
    refused = [
        f"{layer} is a {update.form}{'' if update.form != LowRank.form else ' with a core (Tucker form)'}"
        for layer, update in updates.layers.items()
        if not isinstance(update, LowRank) or update.mid is not None
    ]
    if refused:
        raise ArtifactError(f"{path}: kohya's LoRA cannot hold this, LyCORIS' files can: {some(refused)}")
    return _write(path, updates, blueprints, "networks.lora")


def write_lycoris(path: Path, updates: Updates, blueprints: Sequence[Blueprint]) -> Path:
    """Write any updates as LyCORIS does, under the names that kohya's scripts give.

    Raises:
        ArtifactError: a layer holds what the format cannot, or several models could be meant; nothing has been written.
    """
    refused = [
        f"{layer} is a LoKr of two whole factors with a scale of {update.scale:g}; LyCORIS applies it with 1"
        for layer, update in updates.layers.items()
        if isinstance(update, Kronecker) and update.whole and update.scale != 1
    ]
    if refused:
        raise ArtifactError(f"{path}: LyCORIS' files cannot hold this: {some(refused)}")
    return _write(path, updates, blueprints, "lycoris.kohya")


def _write(path: Path, updates: Updates, blueprints: Sequence[Blueprint], module: str) -> Path:
    blueprint = blueprints[0]
    names = kohya_names(blueprint)
    for other in blueprints[1:]:
        others = kohya_names(other)
        if any(names[layer] != others[layer] for layer in updates.layers):
            raise ArtifactError(
                f"{path}: the layers exist in {blueprint.name} and in {other.name}, which this format names "
                "differently; say which it is for with --base"
            )
    tensors: dict[str, Tensor] = {}
    for layer, update in updates.layers.items():
        tensors |= {f"{names[layer]}.{ending}": value for ending, value in _tensors(update, blueprint, layer).items()}
    return write_tensors(path, tensors, kohya_metadata(path.stem, updates, blueprints, module, tensors))


def _tensors(update: Update, blueprint: Blueprint, layer: str) -> dict[str, Tensor]:
    named = disassemble(update)
    if isinstance(update, Difference) and len(blueprint.shapes[layer]) == 1:
        return {{"diff": "w_norm", "diff_b": "b_norm"}[name]: value for name, value in named.items()}
    if isinstance(update, Scaled):
        named[ALPHA] = alpha_tensor(update.plain_alpha, next(iter(named.values())))
    return named


def _choose(updates: dict[str, Update], blueprints: Sequence[Blueprint], source: str) -> dict[str, Update]:
    """Return updates by layer, after the first model that has them all, by kohya's own names where one does.

    Raises:
        ArtifactError: no model has them all, or their weights have other shapes there.
    """
    missing = {one.name: sorted(updates.keys() - layers_by_name(one).keys()) for one in blueprints}
    having = [one for one in blueprints if not missing[one.name]]
    if not having:
        nearest = min(missing, key=lambda name: len(missing[name]))
        tried = f" (also tried: {', '.join(name for name in missing if name != nearest)})" if len(missing) > 1 else ""
        raise ArtifactError(f"{source}: {nearest} has no layers of these names{tried}: {some(missing[nearest])}")
    own = [one for one in having if updates.keys() <= set(kohya_names(one).values())] or having
    # Where several have the names, 1 and 2 for example, their layers are the same.
    layers = layers_by_name(own[0])
    renamed = {layers[name]: update for name, update in updates.items()}
    if len(renamed) < len(updates):
        raise ArtifactError(f"{source}: names a layer twice, in two spellings")
    fitting(renamed, own, source)
    return renamed


def _endings(path: Path) -> set[str]:
    names, header = glance(path) if path.is_file() else ([], {})
    if "inlay.format" in header:
        return set()
    return {name.partition(".")[2] for name in names if name.startswith((*PREFIXES, STANDALONE))}


def _standalone(path: Path) -> bool:
    return any(name.startswith(STANDALONE) for name in glance(path)[0])
