"""Weights from safetensors files into modules, and the hashes by which they are known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from inlay.base.locate import Location, weight_files
from inlay.errors import ConfigError

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""From the tensors of a whole checkpoint in the original layout to those of one part, named as diffusers names them."""


def load_parts(location: Location, empty: Mapping[str, nn.Module], originals: Mapping[str, Convert]) -> None:
    """Give parts from the meta device their weights in float32 on the CPU.

    Args:
        location: a directory in diffusers' layout, or one file in the layout of the original code.
        empty: the parts by name.
        originals: how each of them comes out of such a file.

    Raises:
        ConfigError: files are missing or broken, or do not fit the parts.
    """
    if location.kind == "checkpoint":
        state = read_weights([location.path])
        for part, module in empty.items():
            fill(module, originals[part](dict(state)), f"{location.path} ({part})")
        return
    for part, module in empty.items():
        files = weight_files(location.path, part)
        fill(module, read_weights(files), f"{files[0].parent}")


def hashes(location: Location, parts: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Return the SHA-256 over the files of some parts of a base, and of each part's."""
    one = [location.path]
    files = {part: one if location.kind == "checkpoint" else weight_files(location.path, part) for part in parts}
    digests = {path: _digest(path) for paths in files.values() for path in paths}
    return joined(digests.values()), {part: joined(digests[path] for path in paths) for part, paths in files.items()}


def hash_of(files: Iterable[Path]) -> str:
    """Return the SHA-256 over files, one after another."""
    return joined(map(_digest, files))


def joined(digests: Iterable[bytes]) -> str:
    """Return the SHA-256 over digests."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """Return the tensors of safetensors files, shards of one model.

    Raises:
        ConfigError: one cannot be read.
    """
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{file}: not a readable safetensors file: {error}") from None
    return state


def fill(module: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Give a module from the meta device its weights in float32.

    Raises:
        ConfigError: they do not fit; it says where they are from.
    """
    expected = module.state_dict()
    if not any(key.startswith("text_model.") for key in expected):
        state = {key.removeprefix("text_model."): value for key, value in state.items()}
    # Older files hold position indices, which are no weights, and other names; CLIPTextModel has no projection.
    state = {_present_name(key): value for key, value in state.items() if not key.endswith("position_ids")}
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    unexpected = [key for key in unexpected if key != "text_projection.weight"]
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected.keys() & state.keys()
        if state[key].shape != expected[key].shape
    ]
    if missing or unexpected or wrong:
        parts = [("missing", missing), ("not expected", unexpected), ("of another shape", sorted(wrong))]
        said = "; ".join(f"{len(keys)} {what}, such as {keys[0]}" for what, keys in parts if keys)
        raise ConfigError(f"{where}: the weights do not fit the configuration: {said}")
    module.load_state_dict({key: state[key].to(torch.float32) for key in expected}, assign=True)
    _restore_buffers(module)


def _present_name(key: str) -> str:
    """Return the name that diffusers now gives to a tensor of the autoencoder's attention (files of 2022 and 2023)."""
    before, found, after = key.partition("mid_block.attentions.0.")
    for old, new in OLD_ATTENTION.items():
        if found and after.startswith(f"{old}."):
            return before + found + new + after.removeprefix(old)
    return key


def _restore_buffers(module: nn.Module) -> None:
    """Recompute buffers that files do not hold and the meta device therefore left empty."""
    for submodule in module.modules():
        for name, buffer in submodule.named_buffers(recurse=False):
            if not buffer.is_meta:
                continue
            if name != "position_ids":
                raise ConfigError(f"{type(submodule).__name__}.{name} cannot be restored; this is not a known base")
            setattr(submodule, name, torch.arange(buffer.shape[-1]).expand(buffer.shape).clone())
