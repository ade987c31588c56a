"""Hypernetworks in A1111's files, and in inlay's own.

A1111 (stable-diffusion-webui) pickles a dictionary: integer keys, the widths of contexts, to a pair of state
dictionaries, for the keys and for the values of attention; text keys to the settings. inlay's safetensors file names
the same tensors `unet.<width>.key.linear.<i>.weight`, with the settings in its header.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.artifacts.state import PICKLED, glance, read_state
from inlay.artifacts.unpickle import read_pickle
from inlay.errors import ArtifactError
from inlay.files import write_atomically, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("key", "value")
"""The two networks of a width, in the order of A1111's pair."""
CROSS_WIDTHS = (768, 1024, 2048)
"""Widths of the text states of Stable Diffusion 1, 2 and XL; no attention of a picture to itself has one of them."""
ACTIVATIONS = (
    *("linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "celu", "gelu", "hardshrink", "hardsigmoid"),
    *("hardswish", "hardtanh", "logsigmoid", "mish", "relu6", "selu", "silu", "softplus", "softshrink", "softsign"),
    "tanhshrink",
)
"""Those without weights or choices of their own, by A1111's names, which are also inlay's."""
INITS = {
    "Normal": "normal",
    "XavierUniform": "xavier_uniform",
    "XavierNormal": "xavier_normal",
    "KaimingUniform": "kaiming_uniform",
    "KaimingNormal": "kaiming_normal",
}
"""A1111's names of initialisations, and inlay's."""
OLD_NAMES = {"linear1.": "linear.0.", "linear2.": "linear.1."}
"""Before layers could be chosen, A1111's files named two."""


@dataclass(frozen=True)
class HypernetworkFile:
    """A hypernetwork as A1111 describes it."""

    networks: Mapping[int, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]
    """By context width: the state dictionaries for keys and for values, with names `linear.<i>.weight`."""
    layer_structure: tuple[float, ...] = (1, 2, 1)
    """Widths inside a network as multiples of the context's."""
    activation: str = "linear"
    """One of ACTIVATIONS."""
    layer_norm: bool = False
    """A layer norm lies behind every layer and its activation."""
    init: str = "Normal"
    """How the weights began, by A1111's name."""
    dropout_structure: tuple[float, ...] | None = None
    """Probability of dropping out behind each layer, as long as `layer_structure`; None for none."""
    activate_output: bool = True
    """The activation lies behind the last layer too."""
    name: str = ""
    """A1111's own name of it."""
    step: int = 0
    """Steps that it was trained for."""
    sd_checkpoint: str | None = None
    """Short hash of the checkpoint that it was trained on."""
    sd_checkpoint_name: str | None = None
    """The checkpoint's name."""
    cross_only: bool = False
    """Only layers that attend to the text have it. A1111 gives it to all layers whose context has the width."""
    strength: float = 1.0
    """Factor of its effect when drawing. A1111's users choose it in the prompt."""


def is_a1111_hypernetwork(data: Any) -> bool:
    """Whether unpickled data is a hypernetwork: pairs of state dictionaries under integers."""
    pairs = [value for key, value in data.items() if type(key) is int] if isinstance(data, dict) else []
    return bool(pairs) and all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(one, dict) for one in pair)
        for pair in pairs
    )


def recognises_a1111(path: Path) -> bool:
    """Whether a file is a hypernetwork of A1111's."""
    if not path.is_file() or path.suffix not in PICKLED:
        return False
    try:
        return is_a1111_hypernetwork(read_pickle(path))
    except ArtifactError:
        return False


def recognises_inlay(path: Path) -> bool:
    """Whether a file is a hypernetwork of inlay's."""
    return path.is_file() and "hypernetwork.layer_structure" in glance(path)[1]


def read_inlay(path: Path) -> HypernetworkFile:
    """Read inlay's own file.

    Raises:
        ArtifactError: it is no such file, or its tensors are not those of the networks that it describes.
    """
    return from_inlay(*read_state(path), str(path))


def write_inlay(path: Path, file: HypernetworkFile) -> Path:
    """Write inlay's own file atomically.

    Raises:
        ArtifactError: tensors and description differ, or the place cannot be written.
    """
    check(file, str(path))
    return write_tensors(path, *to_inlay(file))


def read_a1111(path: Path) -> HypernetworkFile:
    """Read A1111's file by restricted means.

    Raises:
        ArtifactError: it is no such file, or its tensors are not those of the networks that it describes.
    """
    data = read_pickle(path)
    if not is_a1111_hypernetwork(data):
        raise ArtifactError(f"{path}: not an A1111 hypernetwork, which has pairs of networks under whole numbers")
    structure = tuple(data.get("layer_structure") or (1, 2, 1))
    dropout = data.get("dropout_structure")
    if dropout is None and data.get("use_dropout"):
        # Before 2023 a file only said that there is dropout: 0.3 behind the inner layers, the last by another field.
        inner = [0.3] * (len(structure) - 3)
        dropout = [0, *inner, 0.3 if data.get("last_layer_dropout") else 0, 0][-len(structure) :]
    networks = {
        width: tuple(_present(path, f"{width}", state) for state in pair)
        for width, pair in data.items()
        if type(width) is int
    }
    found = HypernetworkFile(
        networks,  # pyright: ignore[reportArgumentType] - pairs, as is_a1111_hypernetwork has seen
        layer_structure=structure,
        activation=data.get("activation_func") or "linear",
        layer_norm=bool(data.get("is_layer_norm", False)),
        init=data.get("weight_initialization") or "Normal",
        dropout_structure=tuple(dropout) if dropout is not None and any(dropout) else None,
        activate_output=bool(data.get("activate_output", True)),
        name=str(data.get("name") or path.stem),
        step=data["step"] if isinstance(data.get("step"), int) else 0,
        sd_checkpoint=_text(data.get("sd_checkpoint")),
        sd_checkpoint_name=_text(data.get("sd_checkpoint_name")),
    )
    check(found, str(path))
    return found


def write_a1111(path: Path, file: HypernetworkFile) -> Path:
    """Write A1111's file atomically, with every field that its versions read.

    Raises:
        ArtifactError: A1111 would apply it otherwise, tensors and description differ, or the place cannot be written.
    """
    import torch

    check(file, str(path))
    _refuse_what_a1111_cannot_hold(file, str(path))
    data: dict[int | str, Any] = {
        width: tuple({name: value.detach().cpu().clone() for name, value in state.items()} for state in pair)
        for width, pair in file.networks.items()
    }
    data |= {
        "step": file.step,
        "name": file.name or path.stem,
        "sd_checkpoint": file.sd_checkpoint,
        "sd_checkpoint_name": file.sd_checkpoint_name,
        "optional_info": None,
        **_settings(file),
    }
    return write_atomically(path, lambda place: torch.save(data, place))


def from_inlay(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str) -> HypernetworkFile:
    """Return what a hypernetwork's own file holds, from its tensors and header.

    Args:
        tensors: by the names of inlay's file.
        metadata: its header.
        source: what to call the file in messages.

    Raises:
        ArtifactError: it is no hypernetwork of inlay.
    """
    facts = {
        key.removeprefix("hypernetwork."): json.loads(value)
        for key, value in metadata.items()
        if key.startswith("hypernetwork.")
    }
    networks: dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        width, _, rest = rest.partition(".")
        kind, _, rest = rest.partition(".")
        if part != "unet" or not width.isdecimal() or kind not in KINDS or "layer_structure" not in facts:
            raise ArtifactError(f"{source}: not a hypernetwork of inlay: {name} is none of its tensors")
        networks.setdefault(int(width), ({}, {}))[KINDS.index(kind)][rest] = value
    method = json.loads(metadata.get("inlay.method", "{}"))
    dropout = facts.get("dropout_structure")
    file = HypernetworkFile(
        dict(sorted(networks.items())),
        layer_structure=tuple(facts["layer_structure"]),
        activation=facts["activation_func"],
        layer_norm=facts["is_layer_norm"],
        init=facts["weight_initialization"],
        dropout_structure=tuple(dropout) if dropout and any(dropout) else None,
        activate_output=facts["activate_output"],
        name=metadata.get("inlay.name", ""),
        step=int(metadata.get("inlay.steps", 0)),
        sd_checkpoint=metadata.get("inlay.sd_checkpoint"),
        sd_checkpoint_name=metadata.get("inlay.base"),
        cross_only=method.get("widths") == "cross",
        strength=method.get("strength", 1.0),
    )
    check(file, source)
    return file


def to_inlay(file: HypernetworkFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the header of inlay's own file; the settings in it make the same networks."""
    widths = tuple(file.networks)
    tensors = {
        f"unet.{width}.{kind}.{name}": value
        for width, pair in file.networks.items()
        for kind, state in zip(KINDS, pair, strict=True)
        for name, value in state.items()
    }
    method = {
        "name": "hypernetwork",
        "widths": "cross" if file.cross_only or (len(widths) == 1 and widths[0] in CROSS_WIDTHS) else widths,
        "layer_structure": file.layer_structure,
        "activation": file.activation,
        "activate_output": file.activate_output,
        "layer_norm": file.layer_norm,
        "dropout_structure": file.dropout_structure,
        "init": INITS.get(file.init, "normal"),
        "strength": file.strength,
    }
    metadata = {f"hypernetwork.{key}": json.dumps(value) for key, value in _settings(file).items()}
    metadata |= {"inlay.method": json.dumps(method), "inlay.steps": str(file.step)}
    if file.name:
        metadata["inlay.name"] = file.name
    if file.sd_checkpoint is not None:
        metadata["inlay.sd_checkpoint"] = file.sd_checkpoint
    if file.sd_checkpoint_name is not None:
        metadata["inlay.base"] = file.sd_checkpoint_name
    return tensors, metadata


def _settings(file: HypernetworkFile) -> dict[str, Any]:
    """Return A1111's fields that describe the networks."""
    dropout = list(file.dropout_structure or [0.0] * len(file.layer_structure))
    return {
        "layer_structure": [int(part) if part == int(part) else part for part in file.layer_structure],
        "activation_func": file.activation,
        "is_layer_norm": file.layer_norm,
        "weight_initialization": file.init,
        "use_dropout": any(dropout),
        "dropout_structure": dropout,
        "last_layer_dropout": dropout[-2] > 0,
        "activate_output": file.activate_output,
    }


def check(file: HypernetworkFile, source: str) -> None:
    """Refuse a file whose tensors are not those of the networks that it describes.

    Raises:
        ArtifactError: with what differs.
    """
    structure, dropout = file.layer_structure, file.dropout_structure
    numbers = all(isinstance(part, (int, float)) for part in (*structure, *(dropout or ())))
    if not numbers or len(structure) < 2 or structure[0] != 1 or structure[-1] != 1:
        raise ArtifactError(
            f"{source}: layer_structure={list(structure)} must begin and end with 1, and like dropout_structure hold "
            "numbers only"
        )
    if file.activation not in ACTIVATIONS:
        raise ArtifactError(
            f"{source}: activation_func={file.activation!r} is not supported; allowed: {', '.join(ACTIVATIONS)}"
        )
    if dropout is not None and (len(dropout) != len(structure) or dropout[0] or dropout[-1]):
        raise ArtifactError(
            f"{source}: dropout_structure={list(dropout)} must be as long as layer_structure={list(structure)} and "
            "have 0 at both ends"
        )
    for width, pair in file.networks.items():
        expected = _shapes(file, width)
        for kind, state in zip(KINDS, pair, strict=True):
            found = {name: tuple(value.shape) for name, value in state.items()}
            if found == expected:
                continue
            name = min(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
            raise ArtifactError(
                f"{source}: the network of width {width} for the {kind}s is not what its settings describe: {name} is "
                f"{found.get(name, 'missing')} instead of {expected.get(name, 'absent')}"
            )


def _shapes(file: HypernetworkFile, width: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a network of ``width``: numbers count activations, norms and dropouts too."""
    sizes = [int(width * part) for part in file.layer_structure]
    shapes: dict[str, tuple[int, ...]] = {}
    place = 0
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        shapes |= {f"linear.{place}.weight": (outputs, inputs), f"linear.{place}.bias": (outputs,)}
        last = index == len(sizes) - 2
        place += 1 + (file.activation != "linear" and (file.activate_output or not last))
        if file.layer_norm:
            shapes |= {f"linear.{place}.weight": (outputs,), f"linear.{place}.bias": (outputs,)}
            place += 1
        place += bool(file.dropout_structure and file.dropout_structure[index + 1] > 0)
    return shapes


def _present(path: Path, width: str, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return a state dictionary under today's names."""
    import torch

    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ArtifactError(f"{path}: {key!r} of the network of width {width} is no tensor")
        old = next((old for old in OLD_NAMES if key.startswith(old)), None)
        named[key if old is None else OLD_NAMES[old] + key.removeprefix(old)] = value
    return named


def _refuse_what_a1111_cannot_hold(file: HypernetworkFile, target: str) -> None:
    if file.strength != 1:
        raise ArtifactError(
            f"{target}: strength={file.strength:g} has no place in an A1111 file; it is chosen in the prompt there "
            f"(<hypernet:name:{file.strength:g}>); A1111 would apply it with 1"
        )
    shared = [str(width) for width in file.networks if width not in CROSS_WIDTHS]
    if file.cross_only and shared:
        raise ArtifactError(
            f"{target}: widths=cross with width {', '.join(shared)}: A1111 would apply it to self-attention of that "
            f"width too; text states of its bases have {', '.join(map(str, CROSS_WIDTHS))}"
        )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
