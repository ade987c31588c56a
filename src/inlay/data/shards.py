"""Shards as a source: their pictures read when their turn comes, their captions from the index."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.data.decode import decode
from inlay.data.settings import DataSettings
from inlay.data.shard_index import Sample, read_index
from inlay.data.sources import Example, Loaded, Skipped, conclude, nearest
from inlay.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

CLASSES = "classes.txt"
"""Beside the shards: the name of each class in the order of the numbers in ``.cls`` members, one a line."""
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def names_shards(source: str) -> bool:
    """Return whether a source means shards: ``x.tar``, ``x-{000..009}.tar`` or ``x-*.tar``, also compressed ones."""
    return bool(re.search(r"\.(tar|tgz|tar\.\w+)$", source.lower()))


def expand(source: str) -> list[Path]:
    """Return the shards that a source names, in order: ``{000..009}`` counts, ``*`` and ``?`` match.

    Raises:
        DataError: one is not there, or nothing matches.
    """
    match = RANGE.search(source)
    if match is not None:
        first, last = match[1], match[2]
        if int(first) > int(last):
            raise DataError(f"data.source: {match[0]} in {source!r} counts backwards; write {{{last}..{first}}}")
        numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
        return [path for number in numbers for path in expand(source[: match.start()] + number + source[match.end() :])]
    path = Path(source).expanduser()
    if any(sign in source for sign in "*?["):
        found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor) if path.anchor else path)))
        if not found:
            raise DataError(f"data.source: no shard matches {source}")
        return found
    if not path.is_file():
        known = [other.name for other in path.parent.glob("*.tar")] if path.parent.is_dir() else []
        near = nearest(path.name, known)
        raise DataError(
            f"data.source: there is no shard {path}" + (f"; did you mean {path.with_name(near)}?" if near else "")
        )
    return [path]


def shard_examples(settings: DataSettings) -> Loaded:
    """List the pictures of ``settings.source`` in the order of the shards.

    Captions are ``settings.prompt``, or each picture's ``.txt`` member, or ``settings.caption_column`` of its ``.json``
    member. With ``settings.classes`` they are ``settings.class_column`` of the ``.json`` member, else the ``.cls``
    member, whose number is looked up in ``classes.txt`` beside the shard where there is one.

    Raises:
        DataError: a shard is missing or no tar file, or pictures or captions are broken or missing and ``on_error`` is
            ``stop``; one message with everything that was found.
    """
    results: list[Example | Skipped] = []
    problems: list[str] = []
    for shard in expand(settings.source):
        index = read_index(shard)
        if index.problem is not None:
            results.append(Skipped(shard.name, index.problem))
        names = _class_names(shard)
        for sample in index.samples:
            name = f"{shard.name}/{sample.key}{sample.suffix}"
            if sample.error is not None:
                results.append(Skipped(name, sample.error))
                continue
            caption = _caption(sample, settings, names)
            if caption is None:
                problems.append(f"{name}: {_missing(sample, settings)}")
                continue
            reader = partial(_read, shard, sample, settings.background)
            results.append(Example(name, caption, sample.sha256, sample.width, sample.height, reader))
    if not results and not problems:
        raise DataError(f"{settings.source}: no pictures in it")
    return conclude(settings, results[: settings.count], problems)


def _read(shard: Path, sample: Sample, background: str) -> Image.Image:
    with shard.open("rb") as file:
        file.seek(sample.offset)
        return decode(file.read(sample.size), background)


def _class_names(shard: Path) -> list[str] | None:
    path = shard.with_name(CLASSES)
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else None


def _caption(sample: Sample, settings: DataSettings, names: list[str] | None) -> str | None:
    """Return what a picture is called, None where nothing says it."""
    if settings.prompt is not None:
        return settings.prompt
    if not settings.classes:
        found = sample.text if sample.text is not None else sample.facts.get(settings.caption_column)
        return " ".join(found.split()) or None if isinstance(found, str) else None
    if settings.class_column in sample.facts:
        return str(sample.facts[settings.class_column])
    number = sample.number
    if number is None or names is None or not number.isdecimal():
        return number or None
    return names[int(number)] if int(number) < len(names) else None


def _missing(sample: Sample, settings: DataSettings) -> str:
    column = settings.class_column if settings.classes else settings.caption_column
    member = ".cls" if settings.classes else ".txt"
    message = f"no {'class' if settings.classes else 'caption'}: neither a {member} member that says it, nor "
    if not sample.facts:
        return message + f"a .json member with {column!r}"
    return message + f"{column!r} in its .json member, which has {', '.join(map(repr, sample.facts))}"
