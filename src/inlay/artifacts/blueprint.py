"""The layers of a model that files may address, and which of several models a file can belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inlay.artifacts.layers import Update
from inlay.errors import ArtifactError

if TYPE_CHECKING:
    from torch import nn

SHOWN = 3
"""Names that a message shows of many."""


@dataclass(frozen=True)
class Blueprint:
    """The layers of one model."""

    name: str
    """What messages call the model."""
    shapes: Mapping[str, tuple[int, ...]]
    """Every layer that has a weight, and the weight's shape; names as in :class:`inlay.artifacts.layers.Updates`."""
    architecture: str | None = None
    """The model's architecture as ModelSpec names it, such as `stable-diffusion-v1`; None for any that it has no
    name for."""
    kohya_version: str | None = None
    """The model as kohya's `ss_base_model_version` names it."""
    resolution: int = 512
    """Side in pixels of the pictures that the model was trained on."""
    prediction: str | None = None
    """What the denoiser predicts, by diffusers' name; None where it is not known."""

    @property
    def xl(self) -> bool:
        """Whether the model is Stable Diffusion XL, of which kohya's files name blocks otherwise."""
        return any(name.startswith("text_encoder_2.") for name in self.shapes)


def layer_shapes(components: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return every layer with a weight of a model's parts, under the names that files have."""
    shapes = {}
    for part, module in components.items():
        if part != "unet" and not part.startswith("text_encoder"):
            continue
        for name, parameter in module.named_parameters():
            layer, _, kind = name.rpartition(".")
            if kind == "weight":
                shapes[file_name(part, layer)] = tuple(parameter.shape)
    return shapes


def file_name(part: str, layer: str) -> str:
    """Return a layer's name in files. Published text encoders have the level `text_model`, transformers 5 has not."""
    if part.startswith("text_encoder") and not layer.startswith(("text_model.", "text_projection")):
        return f"{part}.text_model.{layer}"
    return f"{part}.{layer}"


def fitting(layers: Mapping[str, Update], blueprints: Sequence[Blueprint], source: str) -> list[Blueprint]:
    """Return those models in which every layer exists with a weight that its update fits.

    Args:
        layers: the updates.
        blueprints: the models to choose from, at least one.
        source: what to call the file in messages.

    Raises:
        ArtifactError: none fits; the message tells what is wrong with the one that fits best.
    """
    wrong = {blueprint.name: _misfits(layers, blueprint) for blueprint in blueprints}
    fits = [blueprint for blueprint in blueprints if not wrong[blueprint.name]]
    if fits:
        return fits
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    tried = f" (also tried: {', '.join(name for name in wrong if name != nearest)})" if len(wrong) > 1 else ""
    raise ArtifactError(f"{source}: does not fit {nearest}{tried}: {some(wrong[nearest])}")


def _misfits(layers: Mapping[str, Update], blueprint: Blueprint) -> list[str]:
    found = []
    for name, update in layers.items():
        shape = blueprint.shapes.get(name)
        if shape is None:
            found.append(f"there is no layer {name}")
        elif not update.fits(shape):
            extent = update.extent or shape[:1]
            found.append(f"{name} has a weight of {_by(shape)}, and a {update.form} for {_by(extent)} is in the file")
    return found


def _by(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def some(names: Sequence[str]) -> str:
    """Return the first of many things, and how many more there are."""
    shown = "; ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}; and {len(names) - SHOWN} more"
