"""Pictures and captions of a hub dataset, read with the ``datasets`` library and decoded with our own code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from inlay.data.settings import DataSettings
from inlay.data.sources import Entry, bulleted, nearest
from inlay.errors import DataError


def hub_entries(settings: DataSettings, dataset_id: str) -> tuple[list[Entry], list[str]]:
    """List the pictures of a split, in its order.

    Args:
        settings: the data section.
        dataset_id: what ``datasets.load_dataset`` takes: ``owner/name``, or a local folder of parquet files.

    Returns:
        The pictures, and what is wrong with the captions, one sentence each.

    Raises:
        DataError: the library is missing, the dataset cannot be had, or its columns are not the ones named.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"data.source={settings.source!r} needs the datasets library: pip install 'inlay[hub]'"
        ) from error
    try:
        table = datasets.load_dataset(dataset_id, split=settings.split)
    # The library raises many kinds: DatasetNotFoundError, ConnectionError, ValueError for a split, and so on.
    except Exception as error:
        raise DataError(f"hub dataset {dataset_id!r}, split {settings.split!r}: {error}") from error
    if not isinstance(table, datasets.Dataset):
        raise DataError(f"hub dataset {dataset_id!r}: split {settings.split!r} does not name one split")
    _check_columns(settings, dataset_id, table)
    # Our own decoder gives the pictures of the hub the same orientation, background and checks as those of a folder.
    table = table.cast_column(settings.image_column, datasets.Image(decode=False))
    if settings.count is not None:
        table = table.select(range(min(settings.count, len(table))))
    if not len(table):
        raise DataError(f"hub dataset {dataset_id!r}: split {settings.split!r} is empty")
    pictures = table.select_columns([settings.image_column])
    column = settings.class_column if settings.classes else settings.caption_column
    captions = [settings.prompt] * len(table) if settings.prompt is not None else table[column]
    names = getattr(table.features.get(column), "names", None)  # of numbered classes
    entries, problems = [], []
    for row, caption in enumerate(captions):
        name = f"{settings.split}/{row}"
        if settings.prompt is None:
            if settings.classes and isinstance(caption, int):
                caption = names[caption] if names else str(caption)
            caption = " ".join(caption.split()) if isinstance(caption, str) else caption
            if not caption or not isinstance(caption, str):
                problems.append(f"{name}: {column} is {caption!r}, not a caption")
        entries.append(Entry(name, caption, partial(_read, pictures, row)))
    return entries, problems


def _check_columns(settings: DataSettings, dataset_id: str, table: Any) -> None:
    import datasets

    problems = []
    columns = list(table.column_names)
    pictures = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if settings.image_column not in pictures:
        what = "is not a column of pictures" if settings.image_column in columns else "is not a column"
        fix = (
            f"set data.image_column to one of {', '.join(map(repr, pictures))}"
            if pictures
            else "it has none of pictures"
        )
        problems.append(f"data.image_column={settings.image_column!r} {what}; {fix}")
    key = "class_column" if settings.classes else "caption_column"
    wanted = getattr(settings, key)
    if settings.prompt is None and wanted not in columns:
        near = nearest(wanted, [name for name in columns if name not in pictures])
        problems.append(
            f"data.{key}={wanted!r} is not a column; the columns are "
            f"{', '.join(map(repr, columns))}" + (f". Did you mean {near!r}?" if near else "")
        )
    if problems:
        raise DataError(f"hub dataset {dataset_id!r}:\n" + bulleted(problems))


def _read(pictures: Any, row: int) -> bytes:
    (picture,) = pictures[row].values()
    if picture is None:
        raise ValueError("the row has no picture")
    if picture["bytes"] is not None:
        return picture["bytes"]
    return Path(picture["path"]).read_bytes()
