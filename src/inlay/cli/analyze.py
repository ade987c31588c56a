"""``inlay analyze``: timesteps that share one network, weightings, and where an identifier acts."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from inlay.cli.console import console, emit_json, print_table
from inlay.errors import ConfigError


class Analysis(StrEnum):
    """What can be analyzed."""

    conflict = "conflict"
    pareto = "pareto"
    noise_difference = "noise-difference"


OF_TIMESTEPS = (Analysis.conflict, Analysis.pareto)
OPTIONS = {
    "--bins": OF_TIMESTEPS,
    "--samples": OF_TIMESTEPS,
    "--train-on": (Analysis.conflict,),
    "--draws": OF_TIMESTEPS,
    **dict.fromkeys(
        ("--prompt", "--class-prompt", "--pictures", "--noises", "--timesteps"), (Analysis.noise_difference,)
    ),
}
"""Which analyses an option is for."""


def command(
    what: Annotated[Analysis, typer.Argument(help="`conflict`, `pareto` or `noise-difference`.")],
    run_file: Annotated[
        Path, typer.Argument(help="The run file (YAML): base, pictures, and what trains; or a run directory.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that replace the file's: method=full train.steps=200; or more run directories."),
    ] = None,
    bins: Annotated[
        int | None, typer.Option("--bins", min=2, help="Equal parts of the timesteps; by default 10.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=2, help="Pictures that measure a bin; by default 64.")
    ] = None,
    train_on: Annotated[
        str | None, typer.Option("--train-on", help="conflict: bins to train on, counted from 0; by default 1,2,3.")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws",
            min=2,
            help="How often gradients are measured and, for conflict, trainings repeated; by default 5, conflict 3.",
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="noise-difference: with the identifier; by default data.prompt.")
    ] = None,
    class_prompt: Annotated[
        str | None, typer.Option("--class-prompt", help="noise-difference: the same without the identifier.")
    ] = None,
    pictures: Annotated[
        int | None, typer.Option("--pictures", min=1, help="noise-difference: pictures to noise; by default 8.")
    ] = None,
    noises: Annotated[
        int | None, typer.Option("--noises", min=1, help="noise-difference: draws a picture; by default 2.")
    ] = None,
    timesteps: Annotated[
        str | None, typer.Option("--timesteps", help="noise-difference: such as 100,500; by default five.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to; by default runs/NAME-WHAT.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON; progress goes to stderr.")] = False,
) -> None:
    """Analyze what training does: timesteps as tasks that share one network, and where an identifier acts.

    conflict: train on a few bins of timesteps, each from the same weights, and on all of them; draw how every other
    bin's loss changes, and the cosines between the bins' gradients. Takes the run's steps for each, --draws times.

    pareto: draw how near every weighting comes to the best compromise between the bins, over a sweep of the
    regularisation lambda and over repeated measurements of the gradients. Trains nothing.

    noise-difference: measure finished runs of one base, `inlay analyze noise-difference runs/a runs/b`: how much the
    predicted noise changes with the identifier in the prompt, at several timesteps, and where in the picture.

    Writes WHAT.json and WHAT.png. conflict and pareto measure the plain loss; nothing is saved of what was trained.
    """
    given = {
        "--bins": bins,
        "--samples": samples,
        "--train-on": train_on,
        "--draws": draws,
        "--prompt": prompt,
        "--class-prompt": class_prompt,
        "--pictures": pictures,
        "--noises": noises,
        "--timesteps": timesteps,
    }
    for option, value in given.items():
        if value is not None and what not in OPTIONS[option]:
            raise ConfigError(f"{option} is for {' and '.join(f'`inlay analyze {kind}`' for kind in OPTIONS[option])}")
    chosen = _numbers("--train-on", train_on) or (1, 2, 3)
    at = _numbers("--timesteps", timesteps)
    directory = out or Path("runs") / f"{run_file.stem}-{what}"
    files = {kind: directory / f"{what}.{kind}" for kind in ("json", "png")}
    for file in files.values():
        if file.exists():
            raise ConfigError(f"{file} is there already; give another --out")
    from inlay.cli.progress import TerminalReporter
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.files import write_json
    from inlay.run import analysis_pictures, conflict, noise_difference, pareto
    from inlay.run.load_job import load_job

    with TerminalReporter(to_stderr=json) as reporter:
        if what is Analysis.noise_difference:
            measured = noise_difference.analyze_noise_difference(
                [run_file, *map(Path, overrides or [])],
                reporter,
                prompt,
                class_prompt,
                pictures or 8,
                noises or 2,
                at,
            )
            record, said = measured.record, noise_difference.conclusion(measured.record)
            draw = partial(analysis_pictures.draw_noise_difference, measured)
        elif what is Analysis.conflict:
            record = conflict.analyze_conflict(
                load_job(run_file, overrides or []), reporter, bins or 10, chosen, samples or 64, draws or 3
            )
            said, draw = conflict.conclusion(record), partial(analysis_pictures.draw_conflict, record)
        else:
            record = pareto.analyze_pareto(
                load_job(run_file, overrides or []), reporter, bins or 10, samples or 64, draws or 5
            )
            said, draw = pareto.conclusion(record), partial(analysis_pictures.draw_pareto, record)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(files["json"], record)
    draw(files["png"])
    if json:
        emit_json({"files": [str(file) for file in files.values()], **record})
        return
    if what is Analysis.noise_difference:
        _print_differences(record)
    for sentence in said:
        console.print(sentence, soft_wrap=True)
    console.print(f"look at      {files['png']}", soft_wrap=True)
    console.print(f"numbers      {files['json']}", soft_wrap=True)


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"{option} {text}: must be whole numbers with commas between them, such as 1,2,3")
    return tuple(int(part) for part in parts)


def _print_differences(record: dict[str, Any]) -> None:
    def told(summary: dict[str, Any]) -> str:
        interval = summary["interval"]
        return f"{summary['mean']:.4f}" + (f" ± {interval[1] - summary['mean']:.4f}" if interval else "")

    rows = [
        [name, run["method"], told(run), told(run["base"]), told(run["gain"])] for name, run in record["runs"].items()
    ]
    print_table(["run", "method", ">difference", ">base", ">gain"], rows)
