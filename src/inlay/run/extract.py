"""A LoRA from the difference of two models of one architecture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inlay.artifacts.blueprint import file_name, some
from inlay.artifacts.formats import FORMATS
from inlay.artifacts.layers import Updates
from inlay.artifacts.lowrank import Product, total_error, truncate
from inlay.artifacts.merge import as_update
from inlay.base.contract import Base
from inlay.errors import ConfigError
from inlay.run.weights import base_name, blueprints_of, check_format, load_whole, refuse_existing, weighted_layers

TEXT = ("hidden_act", "num_attention_heads", "layer_norm_eps")
DECISIVE = {
    "unet": ("attention_head_dim", "num_attention_heads", "act_fn", "norm_num_groups", "norm_eps"),
    "text_encoder": TEXT,
    "text_encoder_2": TEXT,
    "vae": ("scaling_factor", "act_fn", "norm_num_groups"),
}
"""Entries of configurations that change what the same weights compute, and show in no shape."""


@dataclass(frozen=True)
class Extraction:
    """What a LoRA holds of a difference, and what it does not."""

    products: Mapping[str, Product]
    """By layer, of those whose weight differs."""
    unchanged: int
    """Linear and convolutional layers whose weights are equal, bit for bit."""
    left_out: Mapping[str, float]
    """Norms of the differences of tensors that a LoRA has no place for, by name: biases, norms, embeddings, and all of
    the autoencoder."""
    updates: Updates
    """The LoRA."""

    @property
    def relative_error(self) -> float:
        """Of all products taken together."""
        return total_error(list(self.products.values()))

    @property
    def left_out_share(self) -> float:
        """Norm of what is left out over the norm of the whole difference."""
        outside = math.hypot(*self.left_out.values())
        whole = math.hypot(outside, *(product.norm for product in self.products.values()))
        return outside / whole if whole else 0.0


def extract_to_file(
    tuned: str,
    original: str,
    output: Path,
    rank: int | None = None,
    energy: float | None = None,
    format_name: str = "diffusers",
    progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Write the LoRA that leads from ``original`` towards ``tuned``; see :func:`extract`.

    Args:
        tuned: a model as run files name it, or a run directory.
        original: the same.
        output: a new file.
        rank: of every layer.
        energy: instead of a rank.
        format_name: a key of FORMATS.
        progress: told (layers done, in all).

    Raises:
        InlayError: a model is not found, they are of different architectures, or something is at `output` already.
    """
    check_format(format_name)
    refuse_existing(output)
    found = extract(load_whole(tuned), load_whole(original), rank, energy, progress)
    facts = {
        "inlay.extracted_from": json.dumps({"tuned": Path(tuned).name, "original": Path(original).name}),
        "inlay.extracted_by": f"energy {energy:g}" if rank is None else f"rank {rank}",
        "inlay.base": base_name(original),
    }
    FORMATS[format_name].write(output, replace(found.updates, metadata=facts), blueprints_of(original))
    return found


def extract(
    tuned: Base,
    original: Base,
    rank: int | None = None,
    energy: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Return the LoRA that leads from ``original`` towards ``tuned``.

    Args:
        tuned: the one model.
        original: the other, of the same architecture.
        rank: of every layer.
        energy: instead of a rank: each layer's smallest rank that keeps this fraction of its squared difference.
        progress: told (layers done, in all).

    Raises:
        ConfigError: the architectures differ, the models do not, or only where a LoRA has no place.
    """
    refuse_differing(tuned, original)
    theirs = weighted_layers(original.components)
    matrices = {
        name: (layer, theirs[name])
        for name, layer in weighted_layers(tuned.components).items()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    }
    products: dict[str, Product] = {}
    for done, (name, (layer, other)) in enumerate(matrices.items(), 1):
        difference = _difference(layer.weight, other.weight)
        if difference.any():
            products[name] = truncate(difference.flatten(1), rank, energy)
        if progress is not None:
            progress(done, len(matrices))
    if not products:
        raise ConfigError(
            f"{tuned.name} and {original.name} do not differ in any linear or convolutional layer of denoiser or text "
            "encoder: there is nothing for a LoRA to hold"
        )
    layers = {name: as_update(product, tuple(matrices[name][0].weight.shape)) for name, product in products.items()}
    held = {f"{name}.weight" for name in matrices}
    return Extraction(products, len(matrices) - len(products), _left_out(tuned, original, held), Updates(layers))


def refuse_differing(tuned: Base, original: Base) -> None:
    """Refuse two models of different architectures, or that predict different things.

    Raises:
        ConfigError: with what differs.
    """
    kinds = [base.architecture.readers for base in (tuned, original)]
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"{tuned.name} and {original.name} are of different architectures: {' and '.join(map(', '.join, kinds))}"
        )
    found = []
    for part, keys in ((part, keys) for part, keys in DECISIVE.items() if part in tuned.components):
        one, other = _shapes(tuned.components[part]), _shapes(original.components[part])
        for name in one.keys() | other.keys():
            if one.get(name) != other.get(name):
                found.append(f"{part}.{name} is {_said(one.get(name))} and {_said(other.get(name))}")
        configs: list[Any] = [base.components[part].config for base in (tuned, original)]
        for key in keys:
            values = [getattr(config, key, None) for config in configs]
            if values[0] != values[1]:
                found.append(f"{part}'s {key} is {values[0]} and {values[1]}")
    if tuned.prediction != original.prediction:
        found.append(f"they predict {tuned.prediction} and {original.prediction}")
    if found:
        raise ConfigError(f"{tuned.name} and {original.name} are of different architectures: {some(sorted(found))}")


def _difference(one: Tensor, other: Tensor) -> Tensor:
    return one.detach().to(torch.float64) - other.detach().to(torch.float64)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def _said(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape))


def _left_out(tuned: Base, original: Base, held: set[str]) -> dict[str, float]:
    found = {}
    for part, module in tuned.components.items():
        others = dict(original.components[part].named_parameters())
        for name, parameter in module.named_parameters():
            layer, _, kind = name.rpartition(".")
            full = f"{file_name(part, layer)}.{kind}"
            norm = float(_difference(parameter, others[name]).norm())
            if norm and full not in held:
                found[full] = norm
    return found
