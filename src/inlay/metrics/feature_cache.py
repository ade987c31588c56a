"""Features extracted once: kept by the content of the picture, or its name, and the fingerprint of the extractor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from inlay.errors import ArtifactError
from inlay.files import read_arrays, write_arrays

Pictures = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
"""Pictures [H, W, 3] of any sizes, or [N, H, W, 3]."""
TOGETHER = 256
"""Pictures that are read and extracted at once, so that thousands need not be in memory."""


class NamedPictures(Sequence[NDArray[np.uint8]]):
    """Pictures whose names are known before they are read: where features are kept, none has to be read."""

    def __init__(self, names: Sequence[str], read: Callable[[int], NDArray[np.uint8]]):
        """Read nothing yet.

        Args:
            names: of each picture, one name for one content and no other.
            read: returns the picture [H, W, 3] of a place; it is called again whenever a picture is asked for.
        """
        self.keys = [hashlib.sha256(f"named {name}".encode()).hexdigest() for name in names]
        self._read = read

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> NDArray[np.uint8]: ...

    @overload
    def __getitem__(self, place: slice) -> list[NDArray[np.uint8]]: ...

    def __getitem__(self, place: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Read a picture, or several."""
        if isinstance(place, slice):
            return [self._read(one) for one in range(len(self))[place]]
        return self._read(range(len(self))[place])


def content_key(picture: NDArray[np.uint8]) -> str:
    """Return the sha256 of a picture's shape and pixels."""
    return hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


class FeatureCache:
    """Features of one extractor in a folder of safetensors files.

    A file is named by its content and holds what one call found missing, so several processes may write at once; a file
    that cannot be read is dropped, and what it held is extracted again.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Open the cache.

        Args:
            folder: parent of all feature caches.
            fingerprint: the extractor's.
        """
        self.folder = folder / fingerprint[:32]
        self._found: dict[str, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                arrays, _ = read_arrays(path)
            except ArtifactError:
                path.unlink(missing_ok=True)
                continue
            for key, row in zip(arrays["keys"], arrays["features"], strict=True):
                self._found[key.tobytes().hex()] = row

    def features(
        self, pictures: Pictures, extract: Callable[[list[NDArray[np.uint8]]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return features [N, D], extracting those of pictures that were never seen, and keeping them.

        Args:
            pictures: one or more.
            extract: from pictures to their features, row by row.

        Raises:
            ArtifactError: the folder cannot be written.
        """
        keys = pictures.keys if isinstance(pictures, NamedPictures) else [content_key(picture) for picture in pictures]
        missing = {key: place for place, key in enumerate(keys) if key not in self._found}
        if missing:
            places = list(missing.values())
            parts = [places[at : at + TOGETHER] for at in range(0, len(places), TOGETHER)]
            rows = np.concatenate([extract([pictures[place] for place in part]) for part in parts])
            self._found |= dict(zip(missing, rows, strict=True))
            written = np.frombuffer(bytes.fromhex("".join(missing)), np.uint8).reshape(-1, 32)
            name = hashlib.sha256("".join(sorted(missing)).encode()).hexdigest()[:32]
            write_arrays(self.folder / f"{name}.safetensors", {"keys": written, "features": rows}, {})
        return np.stack([self._found[key] for key in keys])
