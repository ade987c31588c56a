"""What lies where in a shard: a tar file of pictures with their captions, named as WebDataset does.

A sample is a run of neighbouring members whose names are the same up to the first dot: ``000/dog.jpg``, ``000/dog.txt``
and ``000/dog.json`` make up the sample ``000/dog``. With an index any picture of a shard is one ``seek`` and one
``read`` away, and pictures can be counted, captioned and found broken without reading them again.

Source of the naming: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from inlay.data.cache import cache_directory
from inlay.data.decode import SUFFIXES, decode
from inlay.errors import DataError

VERSION = 1
"""Of the index's form."""
SUFFIX = ".index.json"
"""What the name of a shard's index adds to the shard's."""
PROBED_BYTES = 2**16
"""At each end of a shard: they tell, with its size, whether an index is that shard's."""
TEXT_BYTES = 2**20
"""Longest caption or JSON member that is read."""


class Member(NamedTuple):
    """A file in a shard."""

    name: str
    offset: int
    size: int


class Sample(NamedTuple):
    """A picture in a shard, with what is known of it."""

    key: str
    suffix: str
    offset: int
    size: int
    sha256: str
    width: int
    height: int
    error: str | None
    """Why it cannot be used; None when it can. Width and height are then 0."""
    text: str | None
    """Content of the ``.txt`` member."""
    number: str | None
    """Content of the ``.cls`` member."""
    facts: dict[str, str | int]
    """Texts and whole numbers of the ``.json`` member."""


class ShardIndex(NamedTuple):
    """The pictures of a shard, in their order, and what is wrong with the file as a whole."""

    samples: list[Sample]
    problem: str | None


def read_index(shard: Path, progress: Callable[[int, int], None] | None = None) -> ShardIndex:
    """Return a shard's index: the one beside it, or one in the cache, or made now by decoding every picture once.

    Args:
        shard: a tar file that is not compressed.
        progress: told (pictures decoded, pictures in the shard) while an index is made.

    Raises:
        DataError: the file is no such tar file, or the index cannot be kept.
    """
    identity = identify(shard)
    kept = cache_directory() / "shards" / f"{identity}{SUFFIX}"
    for path in (shard.with_name(shard.name + SUFFIX), kept):
        found = _load(path, identity)
        if found is not None:
            return found
    index = make_index(shard, progress)
    save_index(kept, identity, index)
    return index


def identify(shard: Path) -> str:
    """Return a hash of a shard's size, beginning and end.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with shard.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(f"{VERSION}:{size}:".encode())
            for start in (0, max(0, size - PROBED_BYTES)):
                file.seek(start)
                digest.update(file.read(PROBED_BYTES))
    except OSError as error:
        raise DataError(f"{shard}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def make_index(shard: Path, progress: Callable[[int, int], None] | None = None) -> ShardIndex:
    """Decode every picture of a shard once.

    Raises:
        DataError: the file is no tar file, or a compressed one.
    """
    members, problem = _members(shard)
    groups = [(key, list(group)) for key, group in groupby(members, key=lambda member: _key(member.name))]
    done = 0

    def one(group: tuple[str, list[Member]]) -> Sample | None:
        with shard.open("rb") as file:
            return _examine(group[0], group[1], lambda member: _bytes(file, member))

    samples: list[Sample] = []
    seen: set[str] = set()
    # Pillow and hashlib release the interpreter lock while they work.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for sample in pool.map(one, groups):
            done += 1
            if progress is not None:
                progress(done, len(groups))
            if sample is None:
                continue
            if sample.key in seen:
                sample = sample._replace(error="a second sample of that name; the members of a sample stand together")
            seen.add(sample.key)
            samples.append(sample)
    return ShardIndex(samples, problem)


def save_index(path: Path, identity: str, index: ShardIndex) -> None:
    """Write an index beside its place, then rename it there.

    Raises:
        DataError: the place cannot be written.
    """
    content = {
        "inlay_shard_index": VERSION,
        "shard": identity,
        "problem": index.problem,
        "samples": [sample._asdict() for sample in index.samples],
    }
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise DataError(f"{path}: the index of a shard cannot be written: {error.strerror}") from None


def _load(path: Path, identity: str) -> ShardIndex | None:
    """Return an index that is there, whole, and of this shard; anything else counts as none: it is made anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["inlay_shard_index"] != VERSION or content["shard"] != identity:
            return None
        return ShardIndex([Sample(**sample) for sample in content["samples"]], content["problem"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _members(shard: Path) -> tuple[list[Member], str | None]:
    """Return a tar file's files, as far as they are whole, and what is wrong with the rest."""
    size = shard.stat().st_size
    found: list[Member] = []
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if entry.offset_data + entry.size > size:
                    return found, f"ends in the middle of {entry.name}; the pictures before it are whole"
                if entry.isreg() and not _hidden(entry.name):
                    found.append(Member(entry.name, entry.offset_data, entry.size))
    except tarfile.ReadError as error:
        if not found:
            with shard.open("rb") as file:
                packed = file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
            advice = "is compressed; unpack it to a plain .tar (pictures are compressed already)"
            raise DataError(f"{shard}: {advice if packed else f'is no tar file: {error}'}") from None
        return found, f"is broken after {found[-1].name} ({error}); the pictures before it are whole"
    return found, None


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.removeprefix("./").split("/"))


def _key(name: str) -> str:
    folder, slash, file = name.removeprefix("./").rpartition("/")
    return folder + slash + file.partition(".")[0]


def _suffix(name: str) -> str:
    return "." + name.rpartition("/")[2].partition(".")[2].lower()


def _bytes(file: Any, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _examine(key: str, members: list[Member], read: Callable[[Member], bytes]) -> Sample | None:
    """Return a sample, None where there is no picture in it."""
    by_suffix = {_suffix(member.name): member for member in members}
    pictures = [member for suffix, member in by_suffix.items() if suffix in SUFFIXES]
    if not pictures:
        return None
    picture = pictures[0]
    texts: dict[str, str | None] = {".txt": None, ".cls": None, ".json": None}
    facts: dict[str, str | int] = {}
    sha256, width, height = "", 0, 0
    try:
        if len(pictures) > 1:
            raise ValueError(f"{len(pictures)} pictures in one sample: {', '.join(one.name for one in pictures)}")
        content = read(picture)
        sha256 = hashlib.sha256(content).hexdigest()
        for suffix in texts:
            if suffix in by_suffix:
                texts[suffix] = _text(by_suffix[suffix], read)
        if texts[".json"] is not None:
            facts = _facts(by_suffix[".json"].name, texts[".json"])
        width, height = decode(content, "white").size
        error = None
    except (OSError, ValueError) as problem:
        error = str(problem)
    suffix = _suffix(picture.name)
    return Sample(
        key, suffix, picture.offset, picture.size, sha256, width, height, error, texts[".txt"], texts[".cls"], facts
    )


def _text(member: Member, read: Callable[[Member], bytes]) -> str:
    if member.size > TEXT_BYTES:
        raise ValueError(f"{member.name} has {member.size:,} bytes, too many for a text")
    try:
        return read(member).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{member.name}: cannot be read as UTF-8 text: {error}") from None


def _facts(name: str, text: str) -> dict[str, str | int]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name}: not a JSON object")
    return {
        column: value
        for column, value in found.items()
        if isinstance(value, (str, int)) and not isinstance(value, bool)
    }
