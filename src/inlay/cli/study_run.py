"""``inlay study run``: every cell of a study that has no result yet."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import console, emit_json, human_seconds
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from inlay.study.run import Counts

INTERRUPTED = 130
PLAIN_SECONDS = 60.0
"""Seconds between lines on running cells where the output is no terminal."""


def command(
    study_file: Annotated[Path, typer.Argument(help="The study file (YAML), or a study directory to go on with.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the file's: budget.steps=100 seeds=3.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The study directory; by default runs/ and the file's name.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes on this machine.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster to run on instead, `auto` for the one of this machine.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up cells that failed for good.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON; progress goes to stderr.")] = False,
) -> None:
    """Run every cell of a study that has no result yet.

    Each cell is a run directory under cells/ of the study directory. What was stopped or killed goes on with the same
    command, from the last checkpoints; nothing is done twice. Ctrl-C stops after the running cells have saved.
    """
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.study.settings import read_study

    study = read_study(study_file, overrides or [])
    directory = study_directory(study_file, output)
    if cluster is not None and workers is not None:
        raise ConfigError("--workers are processes on this machine; on a cluster its nodes decide: leave out one")
    from inlay.study.pool import LocalPool, default_workers
    from inlay.study.run import run_study

    execution = study.execution
    where = f"on the cluster at {cluster}"
    if cluster is not None:
        from inlay.study.cluster import Cluster

        executor = Cluster(cluster, execution.cpus, execution.gpus)
    else:
        count = workers or execution.workers or default_workers(execution.cpus, execution.gpus)
        where = f"{count} at a time on this machine"
        executor = LocalPool(directory, count, execution.cpus, execution.gpus)
    with StudyProgress(to_stderr=json) as progress:
        progress.note(f"{study.title or study_file.stem}: {directory}, {where}")
        outcome = run_study(study, directory, executor, progress, retry_failed)
    counts = outcome.counts
    if json:
        facts = {"total": counts.total, "done": counts.done, "failed": counts.failed, "stopped": outcome.stopped}
        emit_json({"directory": str(directory), **facts})
    else:
        console.print(f"{counts.done} of {counts.total} cells are done, {counts.failed} failed")
        if outcome.stopped:
            console.print("stopped; the same command goes on from there")
        elif counts.failed:
            console.print(f"  reasons      inlay study status {directory}", soft_wrap=True)
    if outcome.stopped:
        raise typer.Exit(INTERRUPTED)


def study_directory(study_file: Path, output: Path | None) -> Path:
    """Return where a study's cells go: the stated place, the study directory itself, else `runs/` and its name."""
    if output is not None:
        return output
    if study_file.is_dir():
        return study_file
    return Path("runs") / (study_file.stem if study_file.stem != "study" else study_file.resolve().parent.name)


class StudyProgress:
    """Draws one bar over all cells, where there is a terminal; writes a line for each that ends."""

    def __init__(self, to_stderr: bool = False):
        """Begin. With ``to_stderr`` standard output stays free for JSON."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(stderr=True, markup=False, highlight=False) if to_stderr else console
        self._live = self._console.is_terminal
        self._bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1, facts="")
        self._said = time.monotonic()

    def __enter__(self) -> StudyProgress:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bar.stop()
        sys.stdout.flush()

    def note(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def ended(self, cell: str, kind: str, reason: str | None, counts: Counts) -> None:
        what = {"retried": "failed, will be tried again"}.get(kind, kind)
        why = f": {reason}" if reason and kind != "done" else ""
        self._console.print(f"{cell} {what}{why}; {_facts(counts)}", soft_wrap=True)

    def working(self, running: dict[str, str], counts: Counts) -> None:
        each = ", ".join(f"{cell} {how}" for cell, how in running.items())
        if self._live:
            self._bar.update(
                self._task,
                completed=counts.done + counts.failed,
                total=counts.total,
                facts=f"{_facts(counts)} | {each}",
            )
        elif running and time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            self._console.print(f"{_facts(counts)}: {each}", soft_wrap=True)


def _facts(counts: Counts) -> str:
    time_left = "" if not counts.seconds_left else f", about {human_seconds(counts.seconds_left)} left"
    return f"{counts.done} of {counts.total} done, {counts.running} running, {counts.failed} failed{time_left}"
