"""``inlay shard``: a folder of pictures into tar files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inlay.cli.console import console, emit_json, human_bytes
from inlay.errors import ConfigError


def command(
    source: Annotated[str, typer.Argument(help="A folder of pictures with captions; or shards, to examine them.")],
    into: Annotated[Path | None, typer.Option("--into", help="A new folder for the shards of a folder.")] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="In each shard.")] = 1000,
    prompt: Annotated[str | None, typer.Option("--prompt", help="One caption for all.")] = None,
    caption_column: Annotated[str, typer.Option("--caption-column", help="Of a metadata file.")] = "text",
    classes: Annotated[
        bool, typer.Option("--classes", help="Store the class of each picture instead of a caption: its folder's name.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON; progress goes to stderr.")] = False,
) -> None:
    """Copy a folder of pictures into shards, tar files of many pictures, as WebDataset names them; or examine shards.

    Millions of small files are slow to list and to copy; some hundred large ones are not. Beside each shard lies an
    index (.index.json), so that a run, and `inlay plan`, need not read the pictures to know them. The folder stays as
    it is.

    Without --into, `inlay shard 'x-{000..009}.tar'` decodes every picture of shards that others have written, as their
    first run would, keeps the index in the cache, and names what is broken.
    """
    from inlay.data.shards import names_shards

    if names_shards(source) and into is None:
        _examine(source, json)
        return
    if into is None:
        raise ConfigError("--into: give a new folder for the shards")
    if classes and prompt is not None:
        raise ConfigError("give either --prompt, one caption for all, or --classes")
    from inlay.cli.progress import TerminalReporter
    from inlay.data.settings import DataSettings
    from inlay.data.shard_writer import write_shards

    settings = DataSettings(source=source, prompt=prompt, caption_column=caption_column, classes=classes)
    with TerminalReporter(to_stderr=json) as reporter:
        made = write_shards(
            settings, into, pictures, lambda done, total: reporter.progress("writing shards", done, total)
        )
        for skipped in made.skipped:
            reporter.note(f"{skipped.id} cannot be decoded: {skipped.reason}")
    if json:
        emit_json(
            {
                "source": made.source,
                "shards": [str(path) for path in made.shards],
                "pictures": made.pictures,
                "size_bytes": made.size_bytes,
                "skipped": [skipped._asdict() for skipped in made.skipped],
            }
        )
        return
    console.print(
        f"{made.pictures:,} pictures in {len(made.shards):,} shards, {human_bytes(made.size_bytes)}", soft_wrap=True
    )
    console.print(f"in a run file    data: {{source: '{made.source}'}}", soft_wrap=True)


def _examine(source: str, json: bool) -> None:
    from inlay.cli.progress import TerminalReporter
    from inlay.data.shard_index import read_index
    from inlay.data.shards import expand

    shards = expand(source)
    usable, broken = 0, []
    with TerminalReporter(to_stderr=json) as reporter:
        for number, shard in enumerate(shards):
            what = f"examining {shard.name} ({number + 1} of {len(shards)})"
            index = read_index(shard, lambda done, total, what=what: reporter.progress(what, done, total))
            usable += sum(sample.error is None for sample in index.samples)
            broken += [(shard.name, index.problem)] if index.problem else []
            broken += [
                (f"{shard.name}/{sample.key}{sample.suffix}", sample.error) for sample in index.samples if sample.error
            ]
        for name, reason in broken:
            reporter.note(f"{name}: {reason}")
    if json:
        skipped = [{"id": name, "reason": reason} for name, reason in broken]
        emit_json({"shards": [str(path) for path in shards], "pictures": usable, "skipped": skipped})
        return
    console.print(f"{usable:,} pictures in {len(shards):,} shards can be used, {len(broken):,} cannot", soft_wrap=True)
