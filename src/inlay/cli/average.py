"""``inlay average``: the averages of a run's weights of another length."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from inlay.cli.console import console, emit_json
from inlay.cli.tune import asked_for
from inlay.errors import ConfigError

FAR = 0.05
"""Distance of profiles from which on the result is said to be a rough one."""


def command(
    run: Annotated[Path, typer.Argument(help="A finished run directory, trained with train.ema={name: power}.")],
    sigma_rel: Annotated[
        list[float],
        typer.Option("--sigma-rel", help="Length of the average over that of the run; may be given several times."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="A new directory; by default averages/sigma-rel-... in the run's.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON; progress goes to stderr.")] = False,
) -> None:
    """Average a run's weights over another length than it was trained with.

    A run with `train.ema: {name: power}` stores averages of a few lengths at a few moments. Any other length, from
    about 0.01 (the last weights) to 0.28 (the mean of all), is put together from them without training again
    (arXiv 2312.02696). The result is a run directory: draw with it by `inlay sample`.
    """
    if out is not None and len(sigma_rel) > 1:
        raise ConfigError("--out is one directory; give it with one --sigma-rel")
    from inlay.cli.progress import TerminalReporter
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.average import average
    from inlay.run.directory import read_config

    made = []
    with TerminalReporter(to_stderr=json) as reporter:
        for length in sigma_rel:
            what = f"averaging, sigma_rel {length:g}"
            made.append(average(run, length, out, lambda done, total, what=what: reporter.progress(what, done, total)))
            if made[-1].distance > FAR:
                reporter.note(
                    f"sigma_rel {length:g}: the {made[-1].snapshots} stored moments make this profile only to within "
                    f"{100 * made[-1].distance:.0f} %; with more train.ema.snapshots it would come nearer"
                )
    if json:
        emit_json(
            [
                {
                    "directory": str(one.directory),
                    "sigma_rel": one.sigma_rel,
                    "snapshots": one.snapshots,
                    "distance": one.distance,
                }
                for one in made
            ]
        )
        return
    for one in made:
        how = "as stored" if one.distance == 0 else f"its profile to within {100 * one.distance:.2g} %"
        console.print(f"sigma_rel {one.sigma_rel:g}: {one.directory} ({how})", soft_wrap=True)
    again = shlex.join(["inlay", "sample", str(made[0].directory), *asked_for(read_config(made[0].directory))])
    console.print(f"draw with    {again}", soft_wrap=True)
