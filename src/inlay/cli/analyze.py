"""``inlay analyze``: what timesteps do to each other, and how near weightings are to the best compromise."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from inlay.cli.console import console, emit_json
from inlay.errors import ConfigError


class Analysis(StrEnum):
    """What can be analyzed."""

    conflict = "conflict"
    pareto = "pareto"


def command(
    what: Annotated[Analysis, typer.Argument(help="`conflict` or `pareto`.")],
    run_file: Annotated[Path, typer.Argument(help="The run file (YAML): base, pictures, and what trains.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the file's: method=full train.steps=200.")
    ] = None,
    bins: Annotated[int, typer.Option("--bins", min=2, help="Equal parts of the timesteps.")] = 10,
    samples: Annotated[int, typer.Option("--samples", min=2, help="Pictures that measure a bin.")] = 64,
    train_on: Annotated[
        str | None, typer.Option("--train-on", help="conflict: bins to train on, counted from 0; by default 1,2,3.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option("--draws", min=2, help="pareto: how often gradients are measured; by default 5.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to; by default runs/NAME-WHAT.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON; progress goes to stderr.")] = False,
) -> None:
    """Analyze the timesteps of a model as tasks that share one network.

    conflict: train on a few bins of timesteps, each from the same weights, and on all of them; draw how every other
    bin's loss changes, and the cosines between the bins' gradients. Takes the run's steps once for each.

    pareto: draw how near every weighting comes to the best compromise between the bins, over a sweep of the
    regularisation lambda and over repeated measurements of the gradients. Trains nothing.

    Writes WHAT.json and WHAT.png. The plain loss is measured; nothing is saved of what was trained.
    """
    chosen = _bins(what, train_on)
    if what is Analysis.conflict and draws is not None:
        raise ConfigError("--draws is for `inlay analyze pareto`")
    directory = out or Path("runs") / f"{run_file.stem}-{what}"
    files = {kind: directory / f"{what}.{kind}" for kind in ("json", "png")}
    for file in files.values():
        if file.exists():
            raise ConfigError(f"{file} is there already; give another --out")
    from inlay.cli.progress import TerminalReporter
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.artifacts.files import write_json
    from inlay.run import analysis_pictures, conflict, pareto
    from inlay.run.load_job import load_job

    config = load_job(run_file, overrides or [])
    with TerminalReporter(to_stderr=json) as reporter:
        if what is Analysis.conflict:
            record = conflict.analyze_conflict(config, reporter, bins, chosen, samples)
            said, draw = conflict.conclusion(record), analysis_pictures.draw_conflict
        else:
            record = pareto.analyze_pareto(config, reporter, bins, samples, draws or 5)
            said, draw = pareto.conclusion(record), analysis_pictures.draw_pareto
    directory.mkdir(parents=True, exist_ok=True)
    write_json(files["json"], record)
    draw(record, files["png"])
    if json:
        emit_json({"files": [str(file) for file in files.values()], **record})
        return
    for sentence in said:
        console.print(sentence, soft_wrap=True)
    console.print(f"look at      {files['png']}", soft_wrap=True)
    console.print(f"numbers      {files['json']}", soft_wrap=True)


def _bins(what: Analysis, text: str | None) -> tuple[int, ...]:
    if text is None:
        return (1, 2, 3)
    if what is not Analysis.conflict:
        raise ConfigError("--train-on is for `inlay analyze conflict`")
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--train-on {text}: must be whole numbers with commas between them, such as 1,2,3")
    return tuple(int(part) for part in parts)
