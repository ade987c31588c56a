"""What is in a file: its kind, the base it belongs to, its size, and how strong it is layer by layer."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.artifacts.a1111_hypernetwork import KINDS, HypernetworkFile
from inlay.artifacts.blueprint import Blueprint, fitting
from inlay.artifacts.embeddings import Embeddings
from inlay.artifacts.layers import Difference, LowRank, Scaled, Update, Updates
from inlay.artifacts.lowrank import product_norm

if TYPE_CHECKING:
    from torch import Tensor

TEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
"""Widths of the states that cross-attention reads."""
EMBEDDING_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}
STATED = ("inlay.base", "modelspec.architecture", "ss_base_model_version", "ss_sd_model_name", "sd_checkpoint_name")
"""Where headers name the base, the most precise first."""

INSIDE = ("weight", "bias", "key", "value", "alpha", "up", "down")
"""What layers call their own tensors, and adapters their layers."""


@dataclass(frozen=True)
class Strength:
    """One layer of a file."""

    name: str
    """The layer, network or word."""
    form: str
    """What changes it."""
    parameters: int
    """Numbers in the file, alpha not counted."""
    norm: float | None
    """Frobenius norm of the change of the weight (and bias), at strength 1. Of files that change no weight, of what
    they hold for this layer. None for a whole model that is held against no base."""
    rank: int | None = None
    """Inner width of the change; of an embedding, the number of vectors."""
    alpha: float | None = None
    """As the scale alpha / rank has it."""
    relative: float | None = None
    """`norm` over the norm of the base's own weight (of an embedding: mean length of its vectors over that of the
    base's); None without a base."""


@dataclass(frozen=True)
class Inspection:
    """What is in a file."""

    path: Path
    """The file or directory."""
    bytes: int
    """Its size on disk."""
    format: str
    """Its format, by the name in the table of formats where it has one."""
    method: str
    """What kind of tuning it is."""
    strengths: tuple[Strength, ...]
    """By layer, in the file's order."""
    precisions: Mapping[str, int]
    """Parameters by the precision that they are stored in."""
    stated_base: str | None = None
    """The base that the file says it belongs to."""
    fits: tuple[str, ...] = ()
    """Known bases that it fits by its layers' names and sizes."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the file says about itself beside that."""
    measure: str = "change of the weights"
    """What norms are of."""
    notes: tuple[str, ...] = ()
    """What a reader should know beside that."""

    @property
    def parameters(self) -> int:
        """Numbers in the file, alpha not counted."""
        return sum(self.precisions.values())

    @property
    def norm(self) -> float | None:
        """Of all layers together."""
        norms = [one.norm for one in self.strengths if one.norm is not None]
        return math.hypot(*norms) if norms else None

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready data."""
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "format": self.format,
            "method": self.method,
            "base": {"stated": self.stated_base, "fits": list(self.fits)},
            "parameters": self.parameters,
            "precisions": dict(self.precisions),
            "ranks": span(one.rank for one in self.strengths),
            "alphas": span(one.alpha for one in self.strengths),
            "norm": self.norm,
            "norm_of": self.measure,
            "layers": [
                {
                    "name": one.name,
                    "form": one.form,
                    "rank": one.rank,
                    "alpha": one.alpha,
                    "parameters": one.parameters,
                    "norm": one.norm,
                    "relative": one.relative,
                }
                for one in self.strengths
            ],
            "metadata": dict(self.facts),
            "notes": list(self.notes),
        }


def span(values: Iterable[float | None]) -> list[float]:
    """Return the different values in order, without those that are absent."""
    return sorted({value for value in values if value is not None})


def of_updates(
    blank: Inspection, updates: Updates, blueprints: Sequence[Blueprint], tensors: Mapping[str, Tensor] | None
) -> Inspection:
    """Fill in what a file of layer updates holds.

    Args:
        blank: path, size and format.
        updates: the content.
        blueprints: bases that it may fit.
        tensors: a base's weights and biases, by their layers' names in files, `.weight` and `.bias` behind them.

    Raises:
        ArtifactError: it fits none of the blueprints, or not this base.
    """
    layers = updates.layers
    notes = []
    if tensors is None and any(update.magnitude is not None for update in layers.values()):
        notes.append(
            "norms of a DoRA are those of its low-rank part: what its magnitudes do depends on the base's weights"
        )
    return replace(
        blank,
        method=" and ".join(dict.fromkeys(_form(update) for update in layers.values())),
        strengths=tuple(_strength(name, update, tensors) for name, update in layers.items()),
        precisions=_precisions(value for update in layers.values() for value in update.tensors().values()),
        stated_base=_stated(updates.metadata),
        fits=tuple(blueprint.name for blueprint in fitting(layers, blueprints, str(blank.path))),
        facts=dict(updates.metadata),
        notes=tuple(notes),
    )


def of_hypernetwork(blank: Inspection, file: HypernetworkFile, facts: Mapping[str, str]) -> Inspection:
    """Fill in what a hypernetwork's file holds."""
    widths = sorted(file.networks)
    structure = "-".join(f"{part:g}" for part in file.layer_structure)
    form = f"network {structure} {file.activation}" + (", layer norm" if file.layer_norm else "")
    strengths = [
        Strength(f"{width}.{kind}", form, _count(state.values()), _norm(state.values()))
        for width, pair in file.networks.items()
        for kind, state in zip(KINDS, pair, strict=True)
    ]
    own = {
        "name": file.name,
        "step": str(file.step),
        "layer_structure": json.dumps(list(file.layer_structure)),
        "activation_func": file.activation,
        "activate_output": str(file.activate_output).lower(),
        "is_layer_norm": str(file.layer_norm).lower(),
        "weight_initialization": file.init,
        "sd_checkpoint": file.sd_checkpoint or "",
        "sd_checkpoint_name": file.sd_checkpoint_name or "",
    }
    if file.dropout_structure is not None:
        own["dropout_structure"] = json.dumps(list(file.dropout_structure))
    return replace(
        blank,
        method="hypernetwork",
        strengths=tuple(strengths),
        precisions=_precisions(value for pair in file.networks.values() for state in pair for value in state.values()),
        stated_base=_stated(facts) or file.sd_checkpoint_name,
        fits=tuple(dict.fromkeys(TEXT_WIDTHS[width] for width in widths if width in TEXT_WIDTHS)),
        facts={**{key: value for key, value in own.items() if value}, **facts},
        measure="networks' parameters",
    )


def of_embeddings(blank: Inspection, file: Embeddings, tensors: Mapping[str, Tensor] | None) -> Inspection:
    """Fill in what a file of new words holds; ``tensors`` as for :func:`of_updates`."""
    import torch

    strengths = []
    for word, vectors in file.words.items():
        for encoder, value in vectors.items():
            relative = None
            own = (tensors or {}).get(f"{encoder}.text_model.embeddings.token_embedding.weight")
            if own is not None and own.shape[1] == value.shape[1]:
                relative = float(value.float().norm(dim=1).mean() / own.float().norm(dim=1).mean())
            name = word if len(vectors) == 1 else f"{word} ({encoder})"
            norm = float(torch.linalg.norm(value.double()))
            strengths.append(Strength(name, f"{value.shape[1]} wide", value.numel(), norm, len(value), None, relative))
    values = [value for vectors in file.words.values() for value in vectors.values()]
    if file.layout == "sdxl":
        fits = ["Stable Diffusion XL"]
    else:
        fits = [EMBEDDING_WIDTHS[value.shape[1]] for value in values if value.shape[1] in EMBEDDING_WIDTHS]
    return replace(
        blank,
        method="textual inversion",
        strengths=tuple(strengths),
        precisions=_precisions(values),
        stated_base=_stated(file.facts),
        fits=tuple(dict.fromkeys(fits)),
        facts=file.facts,
        measure="vectors",
    )


def of_tensors(blank: Inspection, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> Inspection:
    """Fill in what a file of named tensors holds, whatever they mean: each layer's parameters and their norm."""
    try:
        method = json.loads(facts.get("inlay.method", "{}")).get("name", "unknown")
    except ValueError:
        method = "unknown"
    groups: dict[str, list[Tensor]] = {}
    for name, value in tensors.items():
        groups.setdefault(_group(name, method), []).append(value)
    return replace(
        blank,
        method=method,
        strengths=tuple(Strength(name, method, _count(values), _norm(values)) for name, values in groups.items()),
        precisions=_precisions(tensors.values()),
        stated_base=_stated(facts),
        facts=facts,
        measure="stored parameters",
    )


def of_method(
    blank: Inspection, tensors: Mapping[str, Tensor], changes: Updates, base: Mapping[str, Tensor]
) -> Inspection:
    """Fill in what a file of one of inlay's methods holds and how it changes a base's weights.

    Args:
        blank: path, size and format.
        tensors: the file's.
        changes: what the method makes of the base's weights and biases, and the file's header.
        base: as for :func:`of_updates`.
    """
    found = of_tensors(blank, tensors, changes.metadata)
    parameters = {one.name: one.parameters for one in found.strengths}
    strengths = (_strength(name, update, base) for name, update in changes.layers.items())
    return replace(
        found,
        strengths=tuple(replace(one, form=found.method, parameters=parameters.get(one.name, 0)) for one in strengths),
        measure="change of the weights",
    )


def differences(tuned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> tuple[Strength, ...]:
    """Return how far the layers of a model are from those of another one of the same architecture, where they differ.

    Args:
        tuned: the model's tensors by their names in files.
        base: the other's.
    """
    groups: dict[str, list[str]] = {}
    for name in tuned:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    found = []
    for layer, names in groups.items():
        change = _norm(tuned[name].double() - base[name].double() for name in names)
        if change:
            before = _norm(base[name] for name in names)
            parameters = _count(tuned[name] for name in names)
            relative = change / before if before else None
            found.append(Strength(layer, "full difference", parameters, change, relative=relative))
    return tuple(found)


def _strength(name: str, update: Update, tensors: Mapping[str, Tensor] | None) -> Strength:
    weight = None if tensors is None else tensors.get(f"{name}.weight")
    bias = update.bias if isinstance(update, Difference) else None
    on_weight = 0.0
    if update.magnitude is not None and weight is not None:
        on_weight = float((update.changed(weight).double() - weight.double()).norm())
    elif isinstance(update, LowRank) and update.mid is None:
        on_weight = abs(update.scale) * product_norm(update.up.flatten(1), update.down.flatten(1))
    elif update.extent is not None:
        on_weight = float(update.delta(update.extent).double().norm())
    norm = math.hypot(on_weight, 0.0 if bias is None else float(bias.double().norm()))
    relative = None
    if weight is not None and tensors is not None:
        changed = [weight] if update.extent is not None else []
        changed += [tensors[f"{name}.bias"]] if bias is not None and f"{name}.bias" in tensors else []
        before = _norm(changed)
        relative = norm / before if before else None
    scaled = isinstance(update, Scaled)
    return Strength(
        name,
        _form(update),
        _count(update.tensors().values()),
        norm,
        rank=update.rank if scaled else None,
        alpha=update.plain_alpha if scaled else None,
        relative=relative,
    )


def _form(update: Update) -> str:
    if update.magnitude is not None:
        return "DoRA" if isinstance(update, LowRank) else f"{update.form} with DoRA"
    return f"{update.form} in Tucker form" if isinstance(update, LowRank) and update.mid is not None else update.form


def _stated(facts: Mapping[str, str]) -> str | None:
    return next((facts[key] for key in STATED if facts.get(key)), None)


def _group(name: str, method: str) -> str:
    """Return the layer that a tensor belongs to: its name without what layers and methods call their own tensors."""
    parts = name.split(".")[:-1] or [name]
    while len(parts) > 1 and (parts[-1] in INSIDE or parts[-1].startswith(("lora_", f"{method}_"))):
        parts.pop()
    return ".".join(parts)


def _precisions(tensors: Iterable[Tensor]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return dict(counts)


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*(float(tensor.detach().double().norm()) for tensor in tensors))
