"""``inlay export``: what a run has learned, or any adapter file, in the format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inlay.cli.console import console, emit_json, human_bytes
from inlay.files import bytes_of


def command(
    source: Annotated[Path, typer.Argument(help="A run directory, or an adapter file of any format that is read.")],
    format: Annotated[
        str, typer.Option("--format", "-f", help="kohya (A1111, Forge, ComfyUI), diffusers, peft, lycoris, ...")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; by default NAME-FORMAT here.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="The model that it belongs to: as in a run file, or sdxl; by default found out."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at the output.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write an adapter in the format of another program.

    Tensors stay as they are, bit for bit. What the format cannot hold is refused, with the layer and the reason.
    """
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.exchange import check_format, default_output, export, open_file

    check_format(format)
    opened = open_file(source, base)
    path = export(opened, format, output or default_output(opened, format), force)
    report(path, opened.format, format, json)


def report(path: Path, before: str, after: str, json: bool) -> None:
    """Say what was written."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    size = bytes_of(path)
    if json:
        emit_json({"path": str(path), "from": before, "format": after, "bytes": size, "files": [str(f) for f in files]})
        return
    console.print(f"{before} -> {after}: {path}, {human_bytes(size)}", soft_wrap=True)
