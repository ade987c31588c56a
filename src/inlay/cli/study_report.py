"""``inlay study report``: what a study's records say, as a page, tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inlay.cli.console import console, emit_json
from inlay.errors import ConfigError

HEADS = {
    "supported": "The data support",
    "open": "They do not decide",
    "caution": "Bear in mind",
}


def command(
    study: Annotated[Path, typer.Argument(help="The study directory, finished or not.")],
    metric: Annotated[
        str | None, typer.Option("--metric", help="What to judge by; by default the first metric of the study file.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="A level to leave out, as factor=level; may be given again."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder to write to; by default `report` in the study directory.")
    ] = None,
    permutations: Annotated[int, typer.Option("--permutations", min=99, help="Draws of each permutation test.")] = 9999,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Report what a study found: tests, comparisons, costs, pictures, failures, and what all this supports.

    Reads the records of the study alone, also while it is running. Writes index.html, which needs no other file,
    report.md, report.json, tables/*.csv and *.tex, and pictures/*.png. The same records give the same files.
    """
    from inlay.study.report.build import PAGE, to_json, write_report
    from inlay.study.table import load_table

    if not study.is_dir():
        raise ConfigError(f"{study}: no such study directory")
    report, folder = write_report(study, load_table(study), out, metric, permutations, without or ())
    if json:
        emit_json({"directory": str(folder), **to_json(report)})
        return
    for kind, head in HEADS.items():
        said = [sentence.text for sentence in report.summary if sentence.kind == kind]
        if said:
            console.print(head, style="bold")
            for text in said:
                console.print(f"- {text}")
            console.print()
    console.print(f"look at      {folder / PAGE}", soft_wrap=True)
