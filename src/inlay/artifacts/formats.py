"""The one table of file formats that `inlay export`, `import`, `merge`, `extract` and `inspect` know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay.artifacts import a1111_hypernetwork, bitfit_file, diffusers_lora, inlay_file, kohya, peft_lora
from inlay.artifacts.blueprint import Blueprint
from inlay.artifacts.embeddings import Layout, read_embeddings, write_embeddings
from inlay.artifacts.embeddings import recognises as recognises_embedding
from inlay.artifacts.state import glance, read_state
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


def _embedding(line: str, suffix: str, layout: Layout) -> Format:
    return Format(
        line,
        "embeddings",
        suffix,
        lambda path: recognises_embedding(path, layout),
        lambda path, _: read_embeddings(path),
        lambda path, contents, _: write_embeddings(path, contents, layout),
    )


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
    "inlay-bitfit": Format(
        "inlay's own file of BitFit, for `inlay merge`; LyCORIS' files can hold it too",
        "updates",
        ".safetensors",
        bitfit_file.recognises,
        bitfit_file.read,
        bitfit_file.write,
    ),
    "inlay-hypernetwork": Format(
        "inlay's own file of a hypernetwork",
        "hypernetwork",
        ".safetensors",
        a1111_hypernetwork.recognises_inlay,
        lambda path, _: a1111_hypernetwork.read_inlay(path),
        lambda path, contents, _: a1111_hypernetwork.write_inlay(path, contents),
    ),
    "a1111-hypernetwork": Format(
        "hypernetwork for A1111 and Forge, by `<hypernet:NAME:1>`",
        "hypernetwork",
        ".pt",
        a1111_hypernetwork.recognises_a1111,
        lambda path, _: a1111_hypernetwork.read_a1111(path),
        lambda path, contents, _: a1111_hypernetwork.write_a1111(path, contents),
    ),
    "inlay-embedding": _embedding("inlay's own file of a new word; diffusers reads it too", ".safetensors", "inlay"),
    "diffusers-embedding": _embedding(
        "new words for diffusers' `load_textual_inversion`, A1111 and ComfyUI", ".safetensors", "diffusers"
    ),
    "a1111-embedding": _embedding("new word for A1111, Forge, ComfyUI and diffusers", ".pt", "a1111"),
    "webui-embedding": _embedding(
        "new word as `emb_params`, for A1111, Forge and ComfyUI; the file's name is the word",
        ".safetensors",
        "emb_params",
    ),
    "sdxl-embedding": _embedding(
        "new word of Stable Diffusion XL, for A1111, Forge and ComfyUI; the file's name is the word",
        ".safetensors",
        "sdxl",
    ),
}
"""Every format by the name that `--format` takes. Of those with the same contents, inlay's own comes first."""


def recognise(path: Path, formats: Mapping[str, Format] = FORMATS) -> str:
    """Return the name of a file's format.

    Raises:
        ArtifactError: there is no such file, it cannot be opened by restricted means, or no format recognises it.
    """
    if not path.exists():
        raise ArtifactError(f"{path}: no such file")
    for name, one in formats.items():
        if one.recognises(path):
            return name
    method = glance(path)[1].get("inlay.method", "") if path.is_file() else ""
    if method:
        raise ArtifactError(
            f"{path}: the result of a method that no other program has ({method[:60]}...); "
            "`inlay sample --adapter` draws with it"
        )
    if path.is_file():
        read_state(path)  # says what is wrong with a file that is broken, or refused for what else is in it
    raise ArtifactError(f"{path}: of no format that inlay reads; it reads: {', '.join(formats)}")
