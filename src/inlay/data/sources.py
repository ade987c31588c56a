"""Where pictures and captions come from: a folder, the hub, or the rendered world."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from inlay.data.decode import decode
from inlay.data.masks import Mask, examine_mask
from inlay.data.settings import DataSettings
from inlay.errors import DataError

if TYPE_CHECKING:
    from inlay.data.tabletop import World

DIGITS = "digits"
"""The source that is scikit-learn's."""


@dataclass(frozen=True)
class Example:
    """One picture, examined but not kept in memory, and its caption."""

    id: str
    """Name within the source, with ``/`` between folders."""
    caption: str
    """The caption before any dropout."""
    sha256: str
    """Hash, in hexadecimal, of the file's content; for a rendered picture, of what draws it."""
    width: int
    """Pixels across, once upright."""
    height: int
    """Pixels down, once upright."""
    reader: Callable[[], Image.Image] = field(repr=False, compare=False)
    """Returns the picture in RGB."""
    mask: Mask | None = None
    """Where in it the loss counts; None where `data.mask` is not set."""
    lot: str | None = None
    """What decides, with the seed, whether it is held out, where a picture stays while `sha256` changes; else None."""

    def open(self) -> Image.Image:
        """Return the picture: RGB, upright, opaque.

        Raises:
            DataError: it cannot be read any more, or its size has changed since it was examined.
        """
        try:
            picture = self.reader()
        except (OSError, ValueError) as error:
            raise DataError(f"{self.id}: could be read when the run began, and no longer can: {error}") from error
        if picture.size != (self.width, self.height):
            raise DataError(
                f"{self.id}: was {self.width} x {self.height} pixels when the run began and is now "
                f"{picture.width} x {picture.height}; leave the pictures as they are while a run goes on"
            )
        return picture

    def open_mask(self) -> Image.Image | None:
        """Return the mask: mode L, of the picture's size; None where it has none.

        Raises:
            DataError: it cannot be read any more.
        """
        try:
            return None if self.mask is None else self.mask.reader()
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.id}: its mask was there when the run began, and cannot be read now: {error}"
            ) from error


class Skipped(NamedTuple):
    """A picture that was left out because ``on_error`` is ``skip``."""

    id: str
    reason: str
    fault: str = "cannot be decoded"
    """What is the matter, of several such pictures together."""


class Loaded(NamedTuple):
    """What a source holds."""

    examples: list[Example]
    skipped: list[Skipped]
    notes: list[str]
    """What the user should know though nothing is wrong, one sentence each."""


@dataclass(frozen=True)
class Entry:
    """A picture of a source before it has been examined."""

    id: str
    caption: str
    read: Callable[[], bytes] = field(repr=False)
    mask: Callable[[], bytes] | None = field(default=None, repr=False)
    """Returns the file of its mask; None where it has no such file."""


def load_examples(settings: DataSettings, resolution: int, key: str = "data.source") -> Loaded:
    """Find, decode and hash every picture of ``settings.source``, in a fixed order.

    Args:
        settings: the data section.
        resolution: side in pixels at which the rendered world draws; files are taken as they are.
        key: the setting that names the source, for messages.

    Raises:
        DataError: the source or its captions are wrong, or a picture cannot be decoded and ``on_error`` is ``stop``;
            one message with everything that was found.
    """
    kind, _, name = settings.source.partition(":")
    if kind == "tabletop":
        return _rendered(settings, name, resolution)
    if settings.source == DIGITS:
        from inlay.data.digits import digit_examples

        _refuse_masks(settings)
        digits = digit_examples(settings)
        return Loaded(digits[: settings.count], [], _shortfall(settings, len(digits)))
    from inlay.data.shards import names_shards, shard_examples

    if names_shards(settings.source):
        _refuse_masks(settings)
        return shard_examples(settings)
    folder = Path(settings.source).expanduser()
    problems: list[str] = []
    zipped = None if folder.is_dir() else split_zip(settings.source)
    if zipped is not None:
        from inlay.data.zipped import zip_entries

        entries, problems = zip_entries(settings, *zipped)
    elif kind == "hub":
        from inlay.data.hub import hub_entries

        entries, problems = hub_entries(settings, name)
    elif folder.is_dir():
        from inlay.data.folder import folder_entries

        entries, problems = folder_entries(settings, folder)
    elif _looks_like_hub_id(settings.source):
        from inlay.data.hub import hub_entries

        try:
            entries, problems = hub_entries(settings, settings.source)
        except DataError as error:
            raise DataError(f"{_missing_folder(folder, key)}. Taken as a hub dataset instead: {error}") from error
    else:
        raise DataError(_missing_folder(folder, key))
    return _examine(entries, problems, settings)


def _examine(entries: Sequence[Entry], problems: Sequence[str], settings: DataSettings) -> Loaded:
    """Decode every picture once, so that none fails hours into a run, and report all that is wrong together."""

    def one(entry: Entry) -> Example | Skipped:
        try:
            content = entry.read()
            picture = decode(content, settings.background)
        except (OSError, ValueError) as error:
            return Skipped(entry.id, str(error))
        try:
            mask = None if settings.mask is None else examine_mask(entry.read, entry.mask, picture.size)
        except (OSError, ValueError) as error:
            return Skipped(entry.id, str(error), "have no mask that fits")
        return Example(
            id=entry.id,
            caption=entry.caption,
            sha256=hashlib.sha256(content).hexdigest(),
            width=picture.width,
            height=picture.height,
            reader=lambda: decode(entry.read(), settings.background),
            mask=mask,
        )

    # Pillow and hashlib release the interpreter lock while they work.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        results = list(pool.map(one, entries[: settings.count]))
    return conclude(settings, results, problems)


def conclude(settings: DataSettings, results: Sequence[Example | Skipped], problems: Sequence[str]) -> Loaded:
    """Return what can be used of the pictures that were examined, at most ``settings.count``.

    Args:
        settings: the data section.
        results: the pictures in order.
        problems: what is wrong with the captions, one sentence each.

    Raises:
        DataError: something is wrong with the captions, or a picture cannot be decoded and ``on_error`` is ``stop``.
    """
    examples = [result for result in results if isinstance(result, Example)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    faults: dict[str, list[str]] = {}
    for one in skipped:
        faults.setdefault(one.fault, []).append(f"{one.id}: {one.reason}")
    listed = [(f"{len(lines)} of {len(results)} pictures {fault}", bulleted(lines)) for fault, lines in faults.items()]
    errors = []
    if problems:
        errors.append(f"captions and pictures do not match:\n{bulleted(problems)}")
    if skipped and (settings.on_error == "stop" or not examples):
        hint = ", or set data.on_error=skip to train without them" if examples else ""
        errors += [f"{what}:\n{lines}\nMend or remove them{hint}." for what, lines in listed]
    if errors:
        raise DataError("\n".join(f"{settings.source}: {error}" for error in errors))
    notes = [f"{what} and are left out:\n{lines}" for what, lines in listed]
    return Loaded(examples, skipped, notes + _shortfall(settings, len(results)))


def _shortfall(settings: DataSettings, found: int) -> list[str]:
    if settings.count is None or settings.count <= found:
        return []
    return [f"data.count asks for {settings.count:,} pictures; {settings.source} has {found:,}"]


def bulleted(lines: Iterable[str], most: int = 20) -> str:
    """Return the lines as a list that stays readable when there are thousands."""
    lines = list(lines)
    shown = [f"  - {line}" for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"  - and {len(lines) - most:,} more")
    return "\n".join(shown)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` most resembles, if any does."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def _missing_folder(folder: Path, key: str) -> str:
    if folder.exists():
        return f"{key}: {folder} is a file; it must be a folder of pictures"
    parent = folder.parent
    if not parent.is_dir():
        return f"{key}: there is no folder {folder}, nor {parent}"
    near = nearest(folder.name, (path.name for path in parent.iterdir() if path.is_dir()))
    return f"{key}: there is no folder {folder}" + (f"; did you mean {parent / near}?" if near else "")


def _refuse_masks(settings: DataSettings) -> None:
    if settings.mask is not None:
        raise DataError(
            f"data.mask: {settings.source} has no masks; take a folder of pictures (NAME.mask.png beside NAME.jpg, or "
            "transparent pictures), a .zip file or hub dataset of transparent pictures, or the rendered world"
        )


def split_zip(source: str) -> tuple[Path, str] | None:
    """Return the .zip file that a source names, and the folder inside it; None when it names none.

    ``data/cifar10.zip/cifar10/train`` is the folder ``cifar10/train`` of ``data/cifar10.zip``.
    """
    path = Path(source).expanduser()
    for place in (path, *path.parents):
        if place.suffix.lower() == ".zip" and place.is_file():
            return place, path.relative_to(place).as_posix().removeprefix(".")
    return None


def folder_class(name: str) -> str | None:
    """Return the first folder in a picture's name, which is its class; None for one that lies in none."""
    first, slash, _ = name.partition("/")
    return first if slash else None


def _looks_like_hub_id(source: str) -> bool:
    owner, slash, name = source.partition("/")
    return bool(slash and owner and name) and "/" not in name and "\\" not in source and owner[0] not in ".~"


def _rendered(settings: DataSettings, part: str, resolution: int) -> Loaded:
    from inlay.data import tabletop

    world = tabletop.World(part, seed=0, size=resolution)
    # Drawing thousands of pictures only to hash them takes minutes; what draws them and their number decide as much.
    code = hashlib.sha256()
    for path in sorted(Path(tabletop.__path__[0]).glob("*.py")):
        code.update(path.read_bytes())
    examples = []
    for index in range(min(len(world), settings.count or 10_000)):
        identity = hashlib.sha256(f"{code.hexdigest()}:{part}:{resolution}:{index}".encode()).hexdigest()
        mask = None if settings.mask is None else Mask(identity, partial(_draw_mask, world, index))
        name = f"tabletop:{part}/{index}"
        examples.append(
            Example(
                id=name,
                caption=_told(world, index, settings),
                sha256=identity,
                width=resolution,
                height=resolution,
                reader=partial(_draw, world, index),
                mask=mask,
                lot=name,  # code that draws the same pictures with less work must hold out the same ones
            )
        )
    return Loaded(examples, [], _shortfall(settings, len(examples)))


def _told(world: World, index: int, settings: DataSettings) -> str:
    if settings.prompt is not None:
        return settings.prompt
    scene, caption = world.describe(index)
    return scene.things[0].kind if settings.classes else caption


def _draw(world: World, index: int) -> Image.Image:
    from inlay.data.farm import draw_image

    return Image.fromarray(draw_image(world, index))


def _draw_mask(world: World, index: int) -> Image.Image:
    from inlay.data.farm import draw_mask

    return Image.fromarray(draw_mask(world, index))
