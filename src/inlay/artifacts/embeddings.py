"""Textual-inversion embeddings: the vectors of new words, in every layout that tools write them in.

A word has one set of vectors for each text encoder: [n, 768] for Stable Diffusion 1, [n, 1024] for 2, and for XL
[n, 768] and [n, 1280]. Which word it is stands in the file in some layouts; in the others the file's name is the word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from inlay.artifacts.state import carried
from inlay.artifacts.unpickle import read_pickle
from inlay.errors import ArtifactError
from inlay.files import read_tensors, write_atomically, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["inlay", "diffusers", "a1111", "emb_params", "sdxl"]
"""`diffusers`: tensors under their words. `inlay`: the same for one word, with the settings of inlay's method in the
header. `a1111`: a pickled `.pt`. `emb_params`: one tensor of that name, as webui's safetensors have it. `sdxl`:
`clip_l` and `clip_g`."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
XL_ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
"""Tensors of XL's layout, and the text encoders that they are for."""
TOKEN = "inlay.token"
"""The word, in the header of layouts that have no other place for it."""
NAMELESS = ("emb_params", "embedding", "vector", "tensor", "data")
"""Names of tensors that are no words."""
LAYERS_NAME = re.compile(r"^(unet|text_encoder|transformer|vae|lora|lycoris|base_model)[._]|\.(weight|bias|alpha)$")
"""What names of layers' tensors look like. Words lie in angle brackets by custom only."""
LARGEST = 64 * 2**20
"""Bytes that no embedding has: a thousand vectors of XL's are a tenth of it. Larger files are not opened to look."""


@dataclass(frozen=True)
class Embeddings:
    """New words and their vectors."""

    words: Mapping[str, Mapping[str, Tensor]]
    """By word, then by text encoder (`text_encoder`, `text_encoder_2`): vectors [n, width]."""
    layout: Layout = "diffusers"
    """How the file that they come from holds them."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the file says about itself: `step`, `sd_checkpoint`, `sd_checkpoint_name`, or a header's entries."""


def is_embedding(data: Any) -> bool:
    """Whether unpickled data, or a safetensors file's tensors by name, are a textual-inversion embedding."""
    import torch

    if isinstance(data, torch.Tensor):
        return data.dim() in (1, 2)
    if not isinstance(data, dict) or not data:
        return False
    if "string_to_param" in data:
        return isinstance(data["string_to_param"], dict)
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in data.items()):
        return False
    if not all(value.dim() in (1, 2) and value.is_floating_point() for value in data.values()):
        return False
    if data.keys() == XL_ENCODERS.keys():
        return True
    widths = {value.shape[-1] for value in data.values()}
    return len(widths) == 1 and not any(LAYERS_NAME.search(key) for key in data)


def recognises(path: Path, layout: Layout) -> bool:
    """Whether a file is an embedding in a layout."""
    if not path.is_file() or path.stat().st_size > LARGEST:
        return False
    try:
        return read_embeddings(path).layout == layout
    except ArtifactError:
        return False


def read_embeddings(path: Path) -> Embeddings:
    """Read an embedding in any layout, pickles by restricted means.

    Raises:
        ArtifactError: it is no embedding, or not a whole one.
    """
    header: dict[str, str] = {}
    if path.suffix == ".safetensors":
        data, header = read_tensors(path)
    else:
        data = read_pickle(path)
    return parse_embeddings(data, header, path)


def parse_embeddings(data: Any, header: Mapping[str, str], path: Path) -> Embeddings:
    """Return what a file's content is, as :func:`read_embeddings` does.

    Args:
        data: tensors by name, or what a pickle held.
        header: a safetensors file's.
        path: the file, for messages and for the word where only its name tells it.

    Raises:
        ArtifactError: it is no embedding, or not a whole one.
    """
    if not is_embedding(data):
        raise ArtifactError(
            f"{path}: not an embedding; known are A1111's string_to_param, one tensor of one or two axes, "
            "clip_l with clip_g, and tensors under their words"
        )
    facts = {key: value for key, value in header.items() if key not in ("format", TOKEN)}
    named = header.get(TOKEN, path.stem)
    if not isinstance(data, dict):
        return Embeddings({named: {"text_encoder": _matrix(data, path)}}, "emb_params", facts)
    if "string_to_param" in data:
        return _from_a1111(data, path)
    if data.keys() == XL_ENCODERS.keys():
        vectors = {encoder: _matrix(data[key], path) for key, encoder in XL_ENCODERS.items()}
        counts = {len(value) for value in vectors.values()}
        if len(counts) > 1:
            raise ArtifactError(f"{path}: clip_l and clip_g hold different numbers of vectors: {sorted(counts)}")
        return Embeddings({named: vectors}, "sdxl", facts)
    [first, *others] = data
    if first in NAMELESS and not others:
        return Embeddings({named: {"text_encoder": _matrix(data[first], path)}}, "emb_params", facts)
    layout: Layout = "inlay" if "inlay.method" in header else "diffusers"
    return Embeddings({word: {"text_encoder": _matrix(value, path)} for word, value in data.items()}, layout, facts)


def write_embeddings(path: Path, embeddings: Embeddings, layout: Layout) -> Path:
    """Write embeddings atomically in a layout; tensors keep their precision.

    Raises:
        ArtifactError: the layout cannot hold them, the file's name is not one of the layout's, or the place cannot be
            written.
    """
    import torch

    encoders = {encoder for vectors in embeddings.words.values() for encoder in vectors}
    if layout != "diffusers" and len(embeddings.words) != 1:
        raise ArtifactError(
            f"{path}: the layout {layout} holds one word, but these are {len(embeddings.words)}: "
            f"{', '.join(embeddings.words)}; write them one at a time, or in the layout diffusers"
        )
    if (layout == "sdxl") != (len(encoders) == 2):
        held = (
            "those of both text encoders of Stable Diffusion XL" if layout == "sdxl" else "one text encoder's vectors"
        )
        raise ArtifactError(
            f"{path}: the layout {layout} holds {held}, but these are for {', '.join(sorted(encoders))}"
        )
    suffix = ".pt" if layout == "a1111" else ".safetensors"
    if path.suffix != suffix:
        raise ArtifactError(f"{path}: a file of the layout {layout} ends in {suffix}")
    word, vectors = next(iter(embeddings.words.items()))
    facts = carried(dict(embeddings.facts))
    if layout == "a1111":
        data = {
            "string_to_token": {"*": 265},  # CLIP's token of "*", which A1111 trains in the place of the word
            "string_to_param": {"*": vectors["text_encoder"].detach().cpu().clone()},
            "name": word,
            "step": int(facts.get("step") or facts.get("inlay.steps") or 0),
            "sd_checkpoint": facts.get("sd_checkpoint"),
            "sd_checkpoint_name": facts.get("sd_checkpoint_name") or facts.get("inlay.base"),
        }
        return write_atomically(path, lambda place: torch.save(data, place))
    if layout == "inlay":
        facts["inlay.method"] = embeddings.facts.get("inlay.method") or _method(word, vectors["text_encoder"], path)
    if layout in ("inlay", "diffusers"):
        # Copies, since words may be views of one matrix, which safetensors refuses.
        copies = {name: one["text_encoder"].clone() for name, one in embeddings.words.items()}
        return write_tensors(path, copies, facts)
    if layout == "sdxl":
        tensors = {key: vectors[encoder] for key, encoder in XL_ENCODERS.items()}
    else:
        tensors = {"emb_params": vectors["text_encoder"]}
    return write_tensors(path, tensors, {**facts, TOKEN: word})


def _method(word: str, vectors: Tensor, path: Path) -> str:
    """Return the settings of inlay's method that a word's vectors belong to, as its files have them."""
    if word != word.lower() or any(character.isspace() for character in word):
        raise ArtifactError(
            f"{path}: inlay's prompts know new words in small letters and without spaces, and this one is {word!r}; "
            "where the file's name is the word, rename the file"
        )
    return json.dumps({"name": "textual_inversion", "token": word, "vectors": len(vectors)})


def _from_a1111(data: Mapping[str, Any], path: Path) -> Embeddings:
    parameters = data["string_to_param"]
    if len(parameters) != 1:
        raise ArtifactError(f"{path}: string_to_param holds {len(parameters)} words; A1111's embeddings hold one")
    [(placeholder, value)] = parameters.items()
    # The first tools gave the file the word itself as a placeholder; A1111 writes "*" and the name.
    word = data.get("name") or (placeholder if placeholder != "*" else path.stem)
    facts = {
        key: str(data[key]) for key in ("step", "sd_checkpoint", "sd_checkpoint_name") if data.get(key) is not None
    }
    return Embeddings({str(word): {"text_encoder": _matrix(value, path)}}, "a1111", facts)


def _matrix(value: Any, path: Path) -> Tensor:
    """Return vectors as [n, width]; one vector may come without its first axis."""
    import torch

    if not isinstance(value, torch.Tensor) or value.dim() not in (1, 2) or not value.is_floating_point():
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ArtifactError(f"{path}: vectors are {shape}; allowed are numbers with one or two axes")
    return value.unsqueeze(0) if value.dim() == 1 else value
