"""The one table of file formats that `inlay export`, `import`, `merge`, `extract` and `inspect` know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay.artifacts import diffusers_lora, inlay_file, kohya, peft_lora
from inlay.artifacts.blueprint import Blueprint
from inlay.errors import ArtifactError


@dataclass(frozen=True)
class Format:
    """One file format: how it is recognised, read and written."""

    line: str
    """What it is and who reads it, for lists."""
    contents: str
    """What it holds: `updates` (:class:`inlay.artifacts.layers.Updates`), `hypernetwork`, `embeddings`."""
    suffix: str
    """What written files end in; empty for a directory."""
    recognises: Callable[[Path], bool]
    """Whether a path is a file of this format. It is never true of two formats."""
    read: Callable[[Path, Sequence[Blueprint]], Any]
    """From a path and the models that the file may belong to, to what the file holds."""
    write: Callable[[Path, Any, Sequence[Blueprint]], Path]
    """Write contents; the models are those that they fit, at least one where layers are named."""


FORMATS: dict[str, Format] = {
    "inlay": Format(
        "inlay's own file, for `inlay sample --adapter`, `inlay merge` and `inlay tune`",
        "updates",
        ".safetensors",
        inlay_file.recognises,
        inlay_file.read,
        inlay_file.write,
    ),
    "diffusers": Format(
        "LoRA for diffusers' `load_lora_weights`, and for most other programs",
        "updates",
        ".safetensors",
        diffusers_lora.recognises,
        diffusers_lora.read,
        diffusers_lora.write,
    ),
    "peft": Format(
        "LoRA, LoHa or LoKr as a directory for PEFT's `PeftModel.from_pretrained`",
        "updates",
        "",
        peft_lora.recognises,
        peft_lora.read,
        peft_lora.write,
    ),
    "kohya": Format(
        "LoRA for A1111, Forge, ComfyUI and kohya's scripts",
        "updates",
        ".safetensors",
        kohya.recognises_kohya,
        kohya.read,
        kohya.write_kohya,
    ),
    "lycoris": Format(
        "LoRA, LoHa, LoKr and full differences for A1111, Forge, ComfyUI and LyCORIS",
        "updates",
        ".safetensors",
        kohya.recognises_lycoris,
        kohya.read,
        kohya.write_lycoris,
    ),
}
"""Every format by the name that `--format` takes."""


def recognise(path: Path, formats: Mapping[str, Format] = FORMATS) -> str:
    """Return the name of a file's format.

    Raises:
        ArtifactError: there is no such file, or no format recognises it.
    """
    if not path.exists():
        raise ArtifactError(f"{path}: no such file")
    for name, one in formats.items():
        if one.recognises(path):
            return name
    raise ArtifactError(f"{path}: of no format that inlay reads; it reads: {', '.join(formats)}")
