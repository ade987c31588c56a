"""What files of updates, of whatever program, must have in common with the run that begins with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from inlay.artifacts.blueprint import some
from inlay.artifacts.formats import FORMATS, recognise
from inlay.artifacts.layers import Updates
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError
from inlay.methods.targets import PRESETS, TEXT_TARGETS
from inlay.run.blueprints import base_blueprint


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


def outside(layers: Collection[str], trained: Collection[str]) -> list[str]:
    """Return a complaint of the layers of a file that a run does not train, with settings that do; or nothing."""
    found = [layer for layer in layers if layer not in trained]
    if not found:
        return []
    parts = {layer.startswith("unet.") for layer in found}
    advice = _advice([layer for layer in layers if layer.startswith("unet.") in parts])
    return [f"changes {len(found)} layers that the run does not train ({some(found)}){advice}"]


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
