"""``inlay study plan``: cells, runs, time and disk of a study before anything starts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import console, emit_json, human_bytes, human_count, human_seconds, print_table

if TYPE_CHECKING:
    from inlay.study.plan import StudyPlan

REASONS = 6
"""Reasons for leaving out combinations that are shown; `--json` has all."""


def command(
    study_file: Annotated[Path, typer.Argument(help="The study file (YAML), or a study directory.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the file's: budget.steps=100 seeds=3.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The study directory, where finished runs tell the time.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Cells at a time.")] = None,
    speed: Annotated[float | None, typer.Option(min=1, help="FLOP/s of a worker, where nothing is measured.")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Measure that: two steps of the first cell.")] = False,
    cells: Annotated[bool, typer.Option("--cells", help="List every cell.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show a study's cells, the count of its runs, and their time and disk, before anything starts.

    Works without weights and pictures, as `inlay plan` does. Finished runs of the study directory tell how long a run
    takes; before there are any, --probe or --speed does.
    """
    from inlay.cli.quiet import quiet_libraries
    from inlay.cli.study_run import study_directory

    quiet_libraries()
    from inlay.study.settings import read_study

    study = read_study(study_file, overrides or [])
    directory = study_directory(study_file, output)
    from inlay.study.plan import plan_study
    from inlay.study.pool import default_workers

    execution = study.execution
    count = workers or execution.workers or default_workers(execution.cpus, execution.gpus)
    plan = plan_study(study, directory, count, speed, probe)
    if json:
        emit_json(plan.to_json())
        return
    _print(plan)
    if cells:
        from inlay.study.cells import expand

        for cell in expand(study).cells:
            console.print(cell.id, soft_wrap=True)


def _print(plan: StudyPlan) -> None:
    if plan.title:
        console.print(plan.title, style="bold")
    console.print(f"{plan.design}\n", soft_wrap=True)
    per_task = ", ".join(f"{task} {count:,}" for task, count in plan.cells_by_task.items())
    rows = [
        ("combinations", f"{plan.combinations:,}"),
        ("left out", f"{sum(one.count for one in plan.left_out):,}"),
        *([("runs that tune", f"{plan.tuning_cells:,}")] if plan.tuning_cells else []),
        ("cells", f"{plan.cells:,}" + (f" ({per_task})" if per_task else "")),
        ("runs in all", f"{plan.runs:,}"),
        ("done already", f"{plan.done:,}"),
    ]
    print_table(["count", ">"], rows)
    if plan.left_out:
        shown = sorted(plan.left_out, key=lambda one: -one.count)
        print_table(
            [">left out", "because"], [(one.count, one.reason.partition("; allowed")[0]) for one in shown[:REASONS]]
        )
        if len(shown) > REASONS:
            rest = sum(one.count for one in shown[REASONS:])
            console.print(f"and {rest:,} for {len(shown) - REASONS} other reasons (--json has all)\n")
    alike: Counter[tuple[str, ...]] = Counter()  # groups differ in more than what is shown here
    for group in plan.groups:
        shown = (
            human_count(group.trainable_parameters),
            "?" if group.steps is None else f"{group.steps:,}",
            "?" if group.run_flops is None else human_count(group.run_flops),
            ("" if group.measured else "~") * (group.run_seconds is not None) + _seconds(group.run_seconds),
            human_bytes(group.result_bytes),
        )
        alike[group.name, *shown] += group.cells
    print_table(
        ["of equal cost", ">runs", ">trained", ">steps", ">FLOPs", ">a run", ">file"],
        [(name, f"{cells:,}", *shown) for (name, *shown), cells in alike.items()],
    )
    speed = "" if plan.speed_flops_per_second is None else f"{human_count(plan.speed_flops_per_second)}FLOP/s, "
    rows = [
        ("speed of a worker", f"{speed}{plan.speed_from}"),
        ("one after another", _seconds(plan.run_seconds)),
        (f"{plan.workers} at a time", _seconds(plan.finish_seconds)),
        ("results", human_bytes(plan.result_bytes)),
        ("caches", "unknown" if plan.cache_bytes is None else human_bytes(plan.cache_bytes)),
        ("disk in all, at most", "unknown" if plan.disk_bytes is None else human_bytes(plan.disk_bytes)),
        ("memory of a run, at most", human_bytes(plan.peak_bytes)),
    ]
    print_table(["time and disk", ""], rows)
    for warning in plan.warnings:
        console.print(f"note: {warning}", style="yellow", soft_wrap=True)
    console.print(
        f"{plan.runs:,} runs, {plan.workers} at a time: time {_seconds(plan.finish_seconds)}, "
        f"disk {'unknown' if plan.disk_bytes is None else human_bytes(plan.disk_bytes)}",
        soft_wrap=True,
    )


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else human_seconds(value) if value else "none"
