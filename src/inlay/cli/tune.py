"""``inlay tune``: from a run file to a tuned model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import console, emit_json, human_bytes, human_count, human_seconds
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from inlay.run.config import JobConfig

INTERRUPTED = 130
"""Exit code of a run that the user stopped, as the shell reports Ctrl-C."""


def command(
    run_file: Annotated[Path, typer.Argument(help="The run file (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the file's: method.rank=8 train.steps=500.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON; progress goes to stderr.")] = False,
) -> None:
    """Tune a model on your pictures.

    The result is a directory: the tuned file, samples.png, loss.png, record.json, trace.jsonl and run.yaml. A run
    that was stopped goes on when the same command is given again.
    """
    run(run_file, overrides or [], json, pretrain=False)


def run(run_file: Path, overrides: list[str], json: bool, pretrain: bool) -> None:
    """Do the work of `inlay tune` and `inlay pretrain`, which differ in the run file they take."""
    from inlay.run.config import PretrainConfig
    from inlay.run.load_job import load_job

    config = load_job(run_file, overrides)
    if isinstance(config, PretrainConfig) != pretrain:
        verb = "tune" if pretrain else "pretrain"
        what = "has no section `denoiser`" if pretrain else "has a section `denoiser`"
        raise ConfigError(f"{run_file} {what}: it is for `inlay {verb}`")
    directory = output_directory(config.output, run_file)
    from inlay.cli.progress import TerminalReporter
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.job import execute

    with TerminalReporter(to_stderr=json) as reporter:
        result = execute(config, directory, reporter)
    if not result.main:
        return
    if json:
        emit_json({"directory": str(directory), **result.record})
        if not result.finished:
            raise typer.Exit(INTERRUPTED)
        return
    costs = result.record["costs"]
    if not result.finished:
        console.print(f"stopped after step {costs['steps']}; the same command goes on from there")
        raise typer.Exit(INTERRUPTED)
    if result.repeated:
        console.print("this run is finished already; give another output=... to do it again")
    console.print(
        f"done: {costs['steps']} steps in {human_seconds(costs['training_seconds'])}, "
        f"{human_count(costs['trainable_parameters'])} trained parameters, {human_bytes(costs['result_bytes'])}"
    )
    tuned = result.record["kind"] == "tune"
    console.print(
        f"  look at      {directory / 'samples.png'}{'   (before and after)' if tuned else ''}", soft_wrap=True
    )
    console.print(f"  loss curve   {directory / 'loss.png'}", soft_wrap=True)
    if "symptoms" in result.record:
        console.print(f"  figures      {directory / 'evaluation.json'}, {directory / 'evaluation.png'}", soft_wrap=True)
    for name in result.record["files"]:
        console.print(f"  result       {directory / name}", soft_wrap=True)
    console.print(
        f"  draw more    {shlex.join(['inlay', 'sample', str(directory), *asked_for(config)])}", soft_wrap=True
    )


def asked_for(config: JobConfig) -> list[str]:
    """Return what `inlay sample` is told to draw with a run's model: a prompt, a class, or nothing."""
    from inlay.run.config import PretrainConfig

    conditioning = config.conditioning if isinstance(config, PretrainConfig) else None
    if conditioning is None or conditioning.name == "text":
        return ["--prompt", config.data.prompt or "a prompt of yours"]
    if conditioning.name == "none":
        return []
    named = conditioning.classes
    return ["--class", named[0] if isinstance(named, tuple) else "0"]


def output_directory(output: str | None, run_file: Path) -> Path:
    """Return the run directory: the stated one, that of a run directory's own run file, else `runs/` and its name."""
    if output is not None:
        return Path(output)
    from inlay.run.directory import RUN_FILE, TRACE

    if run_file.name == RUN_FILE and (run_file.parent / TRACE).exists():
        return run_file.parent
    return Path("runs") / run_file.stem
