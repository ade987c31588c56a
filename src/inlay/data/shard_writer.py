"""Shards made from a folder of pictures: tar files, and beside each its index."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inlay.data.folder import folder_entries
from inlay.data.settings import DataSettings
from inlay.data.shard_index import SUFFIX, identify, make_index, save_index
from inlay.data.shards import CLASSES
from inlay.data.sources import Entry, Skipped, bulleted
from inlay.errors import DataError


@dataclass(frozen=True)
class Sharded:
    """What was written."""

    shards: tuple[Path, ...]
    pictures: int
    size_bytes: int
    skipped: tuple[Skipped, ...]
    """Pictures that cannot be decoded; they lie in the shards, and their index says so."""
    source: str
    """What to write as ``data.source``."""


def write_shards(
    settings: DataSettings,
    into: Path,
    pictures: int,
    progress: Callable[[int, int], None] | None = None,
) -> Sharded:
    """Copy a folder's pictures, as they are, and their captions or classes into tar files.

    Members are named by their number, so that shards of any folder fit together. The same folder gives the same bytes.

    Args:
        settings: of the folder; see :func:`inlay.data.folder.folder_entries` for where captions come from.
        into: a new or empty folder.
        pictures: in each shard.
        progress: told (pictures written, in all).

    Raises:
        DataError: the folder or its captions are wrong, ``into`` holds something, or it cannot be written.
    """
    folder = Path(settings.source).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder of pictures")
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise DataError(f"{into}: must be a new or an empty folder")
    entries, problems = folder_entries(settings, folder)
    if problems:
        raise DataError(f"{folder}: captions and pictures do not match:\n{bulleted(problems)}")
    count = -(-len(entries) // pictures)
    digits = max(3, len(str(count - 1)))
    classes = sorted({entry.caption for entry in entries}) if settings.classes else None
    shards: list[Path] = []
    skipped: list[Skipped] = []
    try:
        into.mkdir(parents=True, exist_ok=True)
        if classes is not None:
            (into / CLASSES).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
        for number in range(count):
            path = into / f"{number:0{digits}d}.tar"
            first = number * pictures
            some = entries[first : first + pictures]
            _write_shard(path, first, some, classes)
            index = make_index(path)
            save_index(path.with_name(path.name + SUFFIX), identify(path), index)
            skipped += [
                Skipped(some[int(sample.key) - first].id, sample.error) for sample in index.samples if sample.error
            ]
            shards.append(path)
            if progress is not None:
                progress(first + len(some), len(entries))
    except OSError as error:
        raise DataError(f"{into}: cannot be written: {error.strerror}") from error
    name = "000.tar" if count == 1 else f"{{{0:0{digits}d}..{count - 1:0{digits}d}}}.tar"
    size = sum(path.stat().st_size for path in shards)
    return Sharded(tuple(shards), len(entries), size, tuple(skipped), str(into / name))


def _write_shard(path: Path, first: int, entries: Sequence[Entry], classes: list[str] | None) -> None:
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
            for number, entry in enumerate(entries, start=first):
                key = f"{number:09d}"
                _add(archive, key + Path(entry.id).suffix.lower(), entry.read())
                if classes is not None:
                    _add(archive, f"{key}.cls", str(classes.index(entry.caption)).encode())
                else:
                    _add(archive, f"{key}.txt", entry.caption.encode())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # no times, owners or rights: the same pictures give the same bytes
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
