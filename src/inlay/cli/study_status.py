"""``inlay study status``: how far a study is, from its directory alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from inlay.cli.console import console, emit_json, print_table


def command(
    study: Annotated[Path, typer.Argument(help="The study directory, or the study file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The study directory of a study file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show how far a study is: cells done, failed and missing, and why cells failed.

    Reads the study directory alone, also while `inlay study run` is at work on it or when its machine is away.
    """
    from json import loads

    from inlay.cli.study_run import study_directory
    from inlay.study.report.words import number
    from inlay.study.status import study_status

    status = study_status(study_directory(study, output))
    if json:
        emit_json(status)
        return
    console.print(f"{status['title'] or status['directory']}: {status['design']}", soft_wrap=True)
    rows = []
    for stage, cells in status["stages"].items():
        rows.append((stage, *(cells[name] for name in ("done", "failed", "missing"))))
    print_table(["stage", ">done", ">failed", ">missing"], rows)
    if status["choices"]:
        print_table(
            ["tuned for", "chosen", "scores"],
            [
                (
                    ", ".join(f"{name}={level}" for name, level in loads(group).items() if level is not None),
                    choice["level"],
                    ", ".join(f"{level}: {number(score)}" for level, score in choice["scores"].items()),
                )
                for group, choice in status["choices"].items()
            ],
        )
    reasons = Counter(cell["reason"] for cell in status["failed"])
    if reasons:
        print_table([">cells", "failed because"], [(count, reason) for reason, count in reasons.most_common()])
    where = "at work now" if status["driver"] else "nobody is at work on it"
    console.print(f"{status['attempts_failed']} attempts failed so far; {where}")
