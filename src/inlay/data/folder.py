"""A folder of pictures, and the caption of each: from its own text file, a metadata file, or one prompt for all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inlay.data.decode import SUFFIXES
from inlay.data.masks import picture_of
from inlay.data.settings import DataSettings
from inlay.data.sources import Entry, folder_class, nearest
from inlay.errors import DataError

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class _Files:
    """The files of a folder that matter, by their names relative to it, in order."""

    pictures: dict[str, Path]
    texts: dict[str, Path]
    metadata: dict[str, Path]
    masks: dict[str, Path]
    """By the stem of their picture."""


def folder_entries(settings: DataSettings, folder: Path) -> tuple[list[Entry], list[str]]:
    """List the pictures of a folder and its subfolders, by name, each with its caption.

    Captions come from ``settings.prompt`` if that is set; else from ``metadata.csv`` or ``metadata.jsonl`` (one row a
    picture: its ``file_name`` relative to the metadata file, and ``settings.caption_column``); else from the text file
    of the same stem. With ``settings.classes`` they are classes, from ``settings.class_column``, else the picture's
    first folder. White space in captions is made single. Hidden files and folders are passed over.

    Returns:
        The pictures, and what is wrong with the captions, one sentence each; when nothing is, each picture has one.

    Raises:
        DataError: there are no pictures, or no captions at all.
    """
    files = _list_files(folder)
    if not files.pictures:
        raise DataError(_no_pictures(folder))
    problems: list[str] = []
    column = settings.class_column if settings.classes else settings.caption_column
    if settings.prompt is not None:
        captions = dict.fromkeys(files.pictures, settings.prompt)
    elif settings.classes and not _have_column(files, column):
        captions = _classes_from_folders(files, problems)
    elif files.metadata:
        captions = _captions_from_metadata(settings, column, files, problems)
    elif files.texts:
        captions = _captions_from_texts(files, problems)
    else:
        raise DataError(
            f"{folder}: none of the {len(files.pictures)} pictures has a caption. "
            'Give one caption for all with data.prompt="a photo of ...", or write each picture\'s into a text file '
            "of its name (dog.jpg, dog.txt), or all into metadata.csv with the columns file_name and "
            f"{settings.caption_column}."
        )
    if settings.mask is not None:
        stems = {_stem(name) for name in files.pictures}
        alone = [path.name for stem, path in files.masks.items() if stem not in stems]
        problems += [f"{name}: a mask without a picture" for name in alone]
    entries = []
    for name, path in files.pictures.items():
        mask = files.masks.get(_stem(name))
        entries.append(Entry(name, captions.get(name, ""), path.read_bytes, mask.read_bytes if mask else None))
    return entries, problems


def _list_files(folder: Path) -> _Files:
    found = _Files({}, {}, {}, {})
    for directory, subfolders, names in os.walk(folder, onerror=_refuse):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            path = Path(directory, name)
            masked = None if name.startswith(".") else picture_of(path.relative_to(folder).as_posix())
            if masked is not None:
                found.masks[masked] = path
                continue
            suffix = path.suffix.lower()
            kind = (
                None
                if name.startswith(".")
                else found.metadata
                if name.lower() in METADATA_NAMES
                else found.pictures
                if suffix in SUFFIXES
                else found.texts
                if suffix == ".txt"
                else None
            )
            if kind is not None:
                kind[path.relative_to(folder).as_posix()] = path
    return found


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}")


def _no_pictures(folder: Path) -> str:
    others = sorted({path.suffix.lower() for path in folder.rglob("*") if path.is_file() and path.suffix})
    message = f"{folder}: no pictures in it or its subfolders"
    if others:
        message += f" (only {', '.join(others[:8])} files)"
    if ".tar" in others:
        message += f"; shards are named by a pattern, such as {folder / '*.tar'}"
    return message + "; pictures are " + ", ".join(sorted(SUFFIXES)) + "."


def _captions_from_texts(files: _Files, problems: list[str]) -> dict[str, str]:
    captions = {}
    by_stem: dict[str, list[str]] = {}
    for name in files.pictures:
        by_stem.setdefault(_stem(name), []).append(name)
    for name, path in files.texts.items():
        pictures = by_stem.get(_stem(name))
        if pictures is None:
            near = nearest(_stem(name), by_stem)
            guess = f"; is it {by_stem[near][0]}'s?" if near else ""
            problems.append(f"{name}: a caption file without a picture{guess}")
            continue
        try:
            caption = _tidy(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}: cannot be read as UTF-8 text: {error}")
            caption = "unreadable"
        if not caption:
            problems.append(f"{name}: the caption is empty")
        captions.update(dict.fromkeys(pictures, caption))
    problems.extend(
        f"{name}: no caption; write {_stem(name)}.txt, or give one caption for all pictures with data.prompt"
        for name in files.pictures
        if name not in captions
    )
    return captions


def _have_column(files: _Files, column: str) -> bool:
    """Return whether a metadata file has a column; one that cannot be read is left to whoever reads it."""
    for path in files.metadata.values():
        try:
            if column in _read_table(path)[0]:
                return True
        except (OSError, ValueError, csv.Error):
            return True
    return False


def _classes_from_folders(files: _Files, problems: list[str]) -> dict[str, str]:
    classes = {}
    for name in files.pictures:
        found = folder_class(name)
        if found is None:
            problems.append(f"{name}: lies in no folder that would name its class")
        else:
            classes[name] = found
    return classes


def _captions_from_metadata(settings: DataSettings, column: str, files: _Files, problems: list[str]) -> dict[str, str]:
    stems = {_stem(name) for name in files.pictures}
    both = [name for name in files.texts if _stem(name) in stems]
    if both and not settings.classes:
        problems.append(
            f"captions lie both in {', '.join(files.metadata)} and in text files ({', '.join(both[:3])}); "
            "keep one of the two"
        )
        return {}
    captions: dict[str, str] = {}
    origins: dict[str, str] = {}
    for metadata_name, path in files.metadata.items():
        try:
            columns, rows = _read_table(path)
        except (OSError, ValueError, csv.Error) as error:
            problems.append(f"{metadata_name}: {error}")
            continue
        missing = [needed for needed in ("file_name", column) if needed not in columns]
        if missing:
            problems.extend(_missing_column(metadata_name, needed, columns) for needed in missing)
            continue
        for line, row in rows:
            place = f"{metadata_name} line {line}"
            file_name, caption = row.get("file_name"), row.get(column)
            if settings.classes and isinstance(caption, int):
                caption = str(caption)
            if not isinstance(file_name, str) or not file_name:
                problems.append(f"{place}: file_name is {file_name!r}, not the name of a picture")
                continue
            name = os.path.normpath(Path(metadata_name).parent / file_name).replace(os.sep, "/")
            if name in origins:
                problems.append(f"{place}: {name} already has a caption from {origins[name]}")
                continue
            origins[name] = place
            if name not in files.pictures:
                near = nearest(name, files.pictures)
                problems.append(f"{place}: there is no picture {name}" + (f"; did you mean {near}?" if near else ""))
            elif not isinstance(caption, str) or not _tidy(caption):
                problems.append(f"{place}: {column} is {caption!r}, not a caption")
            else:
                captions[name] = _tidy(caption)
    # A file that cannot be used at all has said so; all its pictures would only repeat it.
    if origins:
        problems.extend(
            f"{name}: no row in {', '.join(files.metadata)}; add one, or move the picture elsewhere"
            for name in files.pictures
            if name not in origins
        )
    elif not problems:
        problems.append(f"{', '.join(files.metadata)}: no rows")
    return captions


def _missing_column(file_name: str, column: str, columns: list[str]) -> str:
    message = f"{file_name}: no column {column!r}; it has {', '.join(map(repr, columns)) or 'none'}"
    if column == "file_name":
        return message + ". Each row needs file_name, the picture's name relative to the metadata file."
    others = [other for other in columns if other != "file_name"]
    near = nearest(column, others) or (others[0] if len(others) == 1 else None)
    return message + (f". Did you mean data.caption_column={near}?" if near else "")


def _read_table(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, object]]]]:
    """Return the columns of a metadata file, and its rows with their line numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot be read as UTF-8 text: {error}") from error
    rows: list[tuple[int, dict[str, object]]] = []
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = list(reader.fieldnames or ())
        for record in reader:
            if None in record:
                raise ValueError(f"line {reader.line_num} has more cells than columns; quote captions that hold commas")
            rows.append((reader.line_num, dict(record)))
        return columns, iter(rows)
    columns = []
    for line, record_text in enumerate(text.split("\n"), start=1):
        if not record_text.strip():
            continue
        try:
            record = json.loads(record_text)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {line} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {line} is not a JSON object")
        columns.extend(key for key in record if key not in columns)
        rows.append((line, record))
    return columns, iter(rows)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _tidy(caption: str) -> str:
    return " ".join(caption.split())
