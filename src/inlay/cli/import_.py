"""``inlay import``: an adapter file of another program as a file of inlay's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inlay.cli.console import console
from inlay.cli.export import report


def command(
    source: Annotated[Path, typer.Argument(help="The file, or a directory of PEFT's.")],
    base: Annotated[
        str | None,
        typer.Option("--base", help="The model that it belongs to: as in a run file, or sdxl; by default found out."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; by default NAME-inlay here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at the output.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take over an adapter file of diffusers, PEFT, kohya, LyCORIS or another program.

    The file is checked whole: names, shapes, ranks. Unknown tensors are refused, never dropped.
    """
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.exchange import adopt, default_output, export, native_format, open_file

    opened = adopt(open_file(source, base), base)
    target = native_format(opened)
    path = export(opened, target, output or default_output(opened, target), force)
    report(path, opened.format, target, json)
    if not json and base is not None and base != "sdxl":
        console.print(f"draw with it   inlay sample {base} --adapter {path} --prompt '...'", soft_wrap=True)
