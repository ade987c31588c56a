"""Tensors computed once and kept on disk: latents and text states."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from inlay.errors import DataError

SHARD_BYTES = 64 * 2**20
"""Size at which a shard is closed: what a killed build loses at most, and what stays in memory until then."""
VIEWS = 2**19
"""Tensors whose places are remembered: to find one in its shard takes far longer than to copy it."""
ABANDONED_SECONDS = 3600
"""Age from which an unfinished file is taken for that of a killed process."""


def cache_directory() -> Path:
    """Return the directory of all caches: ``$INLAY_CACHE``, or ``~/.cache/inlay``."""
    return Path(os.environ.get("INLAY_CACHE") or Path.home() / ".cache" / "inlay").expanduser()


class TensorCache:
    """Named tensors by key, on disk, for one fingerprint.

    The entries of a fingerprint lie in one directory as safetensors shards, mapped into memory when read. A shard is
    written beside its place and renamed to the SHA-256 of its bytes, so a shard that does not match its name is broken
    and is dropped, and a build that was killed keeps its whole shards. Several processes may read, and even build, at
    once.
    """

    def __init__(self, fingerprint: str, directory: Path | None = None) -> None:
        """Open the cache, reading and checking what it already has.

        Args:
            fingerprint: text that holds everything that decides what the tensors of a key are, apart from the key:
                the weights' hash, the precision, and so on.
            directory: parent of all caches; :func:`cache_directory` by default.
        """
        name = hashlib.sha256(fingerprint.encode()).hexdigest()[:32]
        self.directory = (directory or cache_directory()) / name
        self._fingerprint = fingerprint
        self._shards: set[str] = set()
        self._places: dict[str, safe_open] = {}
        self._names: dict[str, list[str]] = {}
        self._view = lru_cache(maxsize=VIEWS)(self._find)
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def refresh(self) -> None:
        """Take in the shards that other processes have finished since."""
        for path in sorted(self.directory.glob("*.safetensors")):
            if path.name not in self._shards:
                self._read(path)

    def build(
        self,
        keys: Iterable[str],
        compute: Callable[[Sequence[str]], dict[str, torch.Tensor]],
        batch_size: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compute and store whatever is missing.

        The keys are cut into batches in the order given and a batch that lacks any key is computed whole, so that a
        build that was killed and begun again passes the same batches to ``compute`` as one that was not. What is there
        already stays as it is: in other company the last bits may differ.

        Args:
            keys: the keys wanted; those of one call need tensors of one shape. Repeated keys count once.
            compute: returns named tensors whose first axis runs over the keys it is given; on any device.
            batch_size: keys a call of ``compute``.
            progress: told (keys done, keys in all) after every batch.

        Raises:
            DataError: the directory cannot be written.
        """
        keys = list(dict.fromkeys(keys))
        pending: dict[str, torch.Tensor] = {}
        pending_bytes = 0
        for first in range(0, len(keys), batch_size):
            batch = keys[first : first + batch_size]
            if not all(key in self._places for key in batch):
                for name, values in compute(batch).items():
                    for key, value in zip(batch, values.detach().cpu(), strict=True):
                        if key in self._places:
                            continue
                        pending[f"{key}/{name}"] = value.contiguous()
                        pending_bytes += value.nbytes
            if pending_bytes >= SHARD_BYTES:
                self._write(pending)
                pending, pending_bytes = {}, 0
            if progress is not None:
                progress(min(first + batch_size, len(keys)), len(keys))
        if pending:
            self._write(pending)

    def get(self, keys: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the tensors of ``keys``, stacked along a new first axis, on the CPU.

        Raises:
            KeyError: a key has not been built.
        """
        names = self._names[keys[0]]
        return {name: torch.stack([self._view(key, name) for key in keys]) for name in names}

    def _find(self, key: str, name: str) -> torch.Tensor:
        """Return a tensor as it lies in its shard, without a copy: what is not read takes no memory."""
        return self._places[key].get_tensor(f"{key}/{name}")

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != path.stem:
                raise SafetensorError("the content does not match the name")
            shard = safe_open(path, framework="pt")
        except FileNotFoundError:
            return
        except SafetensorError:
            # Nothing is lost: whatever it held counts as missing and is computed again.
            path.unlink(missing_ok=True)
            return
        self._shards.add(path.name)
        names: dict[str, list[str]] = {}
        for entry in shard.keys():  # noqa: SIM118 - a safetensors file is no mapping
            key, _, name = entry.rpartition("/")
            names.setdefault(key, []).append(name)
        self._names |= names
        self._places |= dict.fromkeys(names, shard)

    def _write(self, entries: dict[str, torch.Tensor]) -> None:
        content = save(entries)
        path = self.directory / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for abandoned in self.directory.glob("*.unfinished"):
                with suppress(FileNotFoundError):
                    if time.time() - abandoned.stat().st_mtime > ABANDONED_SECONDS:
                        abandoned.unlink()
            (self.directory / "fingerprint.txt").write_text(self._fingerprint, encoding="utf-8")
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            raise DataError(
                f"{self.directory}: the cache cannot be written: {error}; set INLAY_CACHE to a folder with room"
            ) from error
        self._read(path)
