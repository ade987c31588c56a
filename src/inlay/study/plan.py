"""What a study will take before anything starts: cells, runs, time and disk."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.data.tabletop.subjects import SUBJECTS
from inlay.run.config import JobConfig
from inlay.run.record import read_record
from inlay.study.cells import Cell, LeftOut, expand
from inlay.study.directory import cell_directory, choices
from inlay.study.ledger import read_ledger
from inlay.study.outline import Outlines
from inlay.study.settings import STUDY_FILE, Study

if TYPE_CHECKING:
    from inlay.run.plan import Plan

FIXED_BYTES = 400_000
"""Pictures, trace and record of a run, about."""
SENTENCES = 25
"""Of DreamBooth's protocol."""
_SUBJECTS = frozenset(f"tabletop:subject/{name}" for name in SUBJECTS)
OWN_SECONDS = 3.0
"""Of a run apart from arithmetic: attaching, hashing, saving; about."""


@dataclass(frozen=True)
class Group:
    """Cells whose runs cost the same."""

    name: str
    cells: int
    trainable_parameters: int
    steps: int | None
    run_flops: int | None
    """Training, previews and evaluation of one run; null when the number of steps is not known."""
    run_seconds: float | None
    """Of one run; null when no speed is known."""
    measured: bool
    """Whether the seconds are those of finished runs of this group."""
    result_bytes: int
    checkpoint_bytes: int


@dataclass(frozen=True)
class StudyPlan:
    """What :func:`plan_study` finds out. The names are those of ``inlay study plan --json``."""

    title: str
    design: str
    combinations: int
    """Combinations of levels and tasks, with those that are left out."""
    left_out: tuple[LeftOut, ...]
    tuning_cells: int
    cells: int
    """Of the study itself."""
    cells_by_task: dict[str, int]
    """Of the study itself; empty without tasks."""
    runs: int
    """Those that tune and those of the study together."""
    seeds: tuple[int, ...] | None
    done: int
    """Runs that the study directory already holds."""
    groups: tuple[Group, ...]
    workers: int
    speed_flops_per_second: float | None
    """Of one worker."""
    speed_from: str
    """Where the speed comes from."""
    run_seconds: float | None
    """Of all runs that are left, one after another; null when a group's are not known."""
    finish_seconds: float | None
    """With the workers at once; class pictures and caches counted once each."""
    result_bytes: int
    """Of all runs."""
    cache_bytes: int | None
    """Latents, text states and class pictures; null when the pictures are not here."""
    disk_bytes: int | None
    """All that the study directory will hold at most, checkpoints of running cells with it."""
    peak_bytes: int
    """Largest memory of one run, estimated."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))


def plan_study(
    study: Study, directory: Path, workers: int, speed: float | None = None, probe: bool = False
) -> StudyPlan:
    """Count cells and costs; nothing is loaded but, with ``probe``, one base for two steps.

    Args:
        study: the study file.
        directory: where it will run, or runs: finished runs there say how long one takes.
        workers: cells at a time.
        speed: FLOP/s of a worker to reckon with where nothing is measured.
        probe: whether to measure that by two steps of the first cell.

    Raises:
        InlayError: the study is wrong; see :func:`inlay.study.cells.expand`.
    """
    expansion = expand(study, choices(directory) if (directory / STUDY_FILE).exists() else None)
    outlines = Outlines()
    members: dict[str, list[Cell]] = {}
    for cell in expansion.cells:
        members.setdefault(f"{cell.stage} {outlines.group(cell.config)}", []).append(cell)
    plans = {key: outlines.plan(cells[0].config) for key, cells in members.items()}
    seconds = _measured_seconds(directory)
    measured = {key: [seconds[cell.id] for cell in cells if cell.id in seconds] for key, cells in members.items()}
    speed, source = _speed(plans, members, measured, study, speed, probe)
    named = {key: _name(plans[key], cells, expansion.cells) for key, cells in members.items()}
    groups = tuple(_group(named[key], plans[key], members[key], measured[key], speed) for key in members)
    done = {cell.id for cell in expansion.cells if _is_done(directory, cell)}
    left = 0.0
    known = True
    for group, cells in zip(groups, members.values(), strict=True):
        waiting = sum(cell.id not in done for cell in cells)
        known = known and (group.run_seconds is not None or waiting == 0)
        left += waiting * (group.run_seconds or 0.0)
    shared = {_cache_facts(plan): plan for plan in plans.values()}.values()
    drawing = sum(plan.work.class_images_flops or 0 for plan in shared) / speed if speed else 0.0
    caches = [
        sum(size or 0 for size in (plan.disk.latents_bytes, plan.disk.text_bytes, plan.disk.class_images_bytes))
        if plan.data.pictures is not None
        else None
        for plan in shared
    ]
    cache_bytes = None if None in caches else sum(size for size in caches if size is not None)
    results = sum(group.cells * (group.result_bytes + FIXED_BYTES) for group in groups)
    checkpoints = workers * max(group.checkpoint_bytes for group in groups)
    return StudyPlan(
        title=study.title,
        design=expansion.design,
        combinations=expansion.combinations,
        left_out=expansion.left_out,
        tuning_cells=len(expansion.tuning),
        cells=len(expansion.main),
        runs=len(expansion.cells),
        cells_by_task=dict(Counter(cell.task for cell in expansion.main if cell.task is not None)),
        seeds=study.seeds,
        done=len(done),
        groups=groups,
        workers=workers,
        speed_flops_per_second=speed,
        speed_from=source,
        run_seconds=left if known else None,
        finish_seconds=left / workers + drawing if known else None,
        result_bytes=results,
        cache_bytes=cache_bytes,
        disk_bytes=None if cache_bytes is None else results + cache_bytes + checkpoints,
        peak_bytes=max(plan.memory.peak_bytes for plan in plans.values()),
        warnings=tuple(_warnings(study, tuple(plans.values()), workers)),
    )


def _cache_facts(plan: Plan) -> tuple[str, str, str | None]:
    return plan.base, plan.data.source, plan.data.hash


def _steps(config: JobConfig, plan: Plan) -> int | None:
    """Return the steps of a run, None when the clock or an unknown number of pictures ends it."""
    if plan.data.images_per_epoch is None:
        return config.train.steps
    return config.train.total_steps(plan.data.images_per_epoch)


def _flops(config: JobConfig, plan: Plan) -> int | None:
    """Return the arithmetic of one run: training, previews before and after it, and the pictures of its evaluation."""
    steps = _steps(config, plan)
    if steps is None:
        return None
    step = plan.work.forward_step_flops + plan.work.backward_step_flops
    return steps * step + _drawing_flops(config, plan)


def _drawing_flops(config: JobConfig, plan: Plan) -> int:
    preview, evaluate = config.preview, config.evaluate
    prompts = len(preview.prompts) if preview.prompts else 1 if config.data.prompt else 4
    flops = 2 * plan.work.preview_flops
    if evaluate is None:
        return flops
    asked = len(evaluate.prompts) if isinstance(evaluate.prompts, tuple) else prompts
    if evaluate.prompts == "dreambooth" or (evaluate.prompts is None and config.data.source in _SUBJECTS):
        asked = SENTENCES
    steps = _steps(config, plan) or 0
    rounds = 1 + (3 if evaluate.symptoms else 0) + (1 + steps // evaluate.every if evaluate.every else 0)
    # A picture costs its calls of the denoiser, twice as much with guidance; the decoder's share is small.
    each = (
        plan.work.preview_flops / (prompts * preview.pictures) / (preview.steps * (1 if preview.guidance == 1 else 2))
    )
    calls = asked * evaluate.pictures * evaluate.steps * (1 if evaluate.guidance == 1 else 2)
    return flops + round(rounds * calls * each)


def _name(plan: Plan, cells: Sequence[Cell], every: Sequence[Cell]) -> str:
    """Name runs of equal cost by what they share, of what the study varies: methods, levels and tasks."""
    methods = " + ".join(method.name for method in plan.methods)
    levels = [
        level if isinstance(level, str) else f"{factor}={level}"
        for factor, level in cells[0].factors.items()
        if all(cell.factors[factor] == level for cell in cells) and any(cell.factors[factor] != level for cell in every)
    ]
    name = ", ".join(levels) or methods
    if cells[0].stage == "tuning":
        return f"tuning {name}"
    tasks = sorted({cell.task for cell in cells if cell.task is not None})
    return f"{name} on {', '.join(tasks)}" if tasks else name


def _group(name: str, plan: Plan, cells: Sequence[Cell], measured: Sequence[float], speed: float | None) -> Group:
    flops = _flops(cells[0].config, plan)
    estimate = None if speed is None or flops is None else flops / speed + OWN_SECONDS
    minutes = cells[0].config.train.minutes
    if minutes is not None:
        drawing = 0.0 if speed is None else _drawing_flops(cells[0].config, plan) / speed
        estimate = 60 * minutes + drawing + OWN_SECONDS
    return Group(
        name=name,
        cells=len(cells),
        trainable_parameters=plan.trainable_parameters,
        steps=_steps(cells[0].config, plan),
        run_flops=flops,
        run_seconds=sum(measured) / len(measured) if measured else estimate,
        measured=bool(measured),
        result_bytes=plan.disk.result_bytes,
        checkpoint_bytes=plan.disk.checkpoints_bytes,
    )


def _measured_seconds(directory: Path) -> dict[str, float]:
    """Return how long finished cells took, from the ledger."""
    return {
        event["cell"]: event["seconds"]
        for event in read_ledger(directory)
        if event["event"] == "done" and event["seconds"] is not None
    }


def _speed(
    plans: dict[str, Plan],
    members: dict[str, list[Cell]],
    measured: dict[str, list[float]],
    study: Study,
    stated: float | None,
    probe: bool,
) -> tuple[float | None, str]:
    """Return the FLOP/s of a worker and where they come from."""
    finished = [
        (_flops(members[key][0].config, plans[key]), value) for key, values in measured.items() for value in values
    ]
    pairs = [(flops, value) for flops, value in finished if flops is not None]
    if pairs:
        return sum(flops for flops, _ in pairs) / sum(value for _, value in pairs), f"{len(pairs)} finished runs"
    if stated is not None:
        return stated, "as stated"
    if not probe:
        return None, "not measured: --probe takes two steps, --speed states it"
    import torch

    from inlay.run.probe import probe as take_steps

    torch.set_num_threads(study.execution.cpus)
    key = next(iter(members))
    return take_steps(members[key][0].config, plans[key]).step_flops_per_second, "two steps of the first cell, alone"


def _is_done(directory: Path, cell: Cell) -> bool:
    record = read_record(cell_directory(directory, cell.id))
    return record is not None and record["status"] == "done"


def _warnings(study: Study, plans: Sequence[Plan], workers: int) -> list[str]:
    found = list(dict.fromkeys(warning for plan in plans for warning in plan.warnings))
    machine = plans[0].machine
    need = max(plan.memory.peak_bytes for plan in plans)
    if workers * need > machine.available_bytes and machine.device == "cpu":
        found.append(
            f"{workers} workers need up to {workers * need / 2**30:.1f} GiB together, and "
            f"{machine.available_bytes / 2**30:.1f} GiB are available: give fewer --workers"
        )
    if study.seeds is None or len(study.seeds) < 2:
        found.append("one seed: differences cannot be told from chance; give several seeds for what should hold")
    if study.budget is not None and study.budget.seconds is not None:
        found.append("budget.seconds: results depend on the machine and on how many workers share it")
    return found
