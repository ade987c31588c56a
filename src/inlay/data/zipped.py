"""A folder of pictures inside a .zip file, read where it lies and never unpacked."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path, PurePosixPath

from inlay.data.decode import SUFFIXES
from inlay.data.settings import DataSettings
from inlay.data.sources import Entry, folder_class, nearest
from inlay.errors import DataError


def zip_entries(settings: DataSettings, file: Path, folder: str) -> tuple[list[Entry], list[str]]:
    """List the pictures of a folder in a .zip file and of its subfolders, by name.

    Each has ``settings.prompt`` for a caption, or with ``settings.classes`` the name of the first folder on the way to
    it from ``folder``.

    Returns:
        The pictures, and what is wrong with the captions, one sentence each.

    Raises:
        DataError: the file or the folder cannot be read, there are no pictures, or nothing says what they show.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not a readable .zip file: {error}") from None
    prefix = f"{folder}/" if folder else ""
    names = sorted(
        name
        for name in archive.namelist()
        if name.startswith(prefix)
        and PurePosixPath(name).suffix.lower() in SUFFIXES
        and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
    )
    if not names:
        folders = {str(PurePosixPath(name).parent) for name in archive.namelist()}
        near = nearest(folder, folders)
        raise DataError(f"{file}: no pictures in {folder or 'it'}" + (f"; did you mean {file}/{near}?" if near else ""))
    if not settings.classes and settings.prompt is None:
        raise DataError(
            f"{file}: pictures in a .zip file have no captions; give one for all with data.prompt, or take their "
            "folders for classes with data.classes=true"
        )
    entries, problems = [], []
    for name in names:
        inner = name.removeprefix(prefix)
        caption = settings.prompt if not settings.classes else folder_class(inner)
        if caption is None:
            problems.append(f"{inner}: lies in no folder that would name its class")
        entries.append(Entry(inner, caption or "", partial(archive.read, name)))
    return entries, problems
