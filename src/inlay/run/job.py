"""A run from its configuration to its directory: the only place where the parts are put together."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from inlay.artifacts.files import read_tensors, write_tensors, write_text
from inlay.base.architecture import Architecture, read_architecture
from inlay.base.locate import locate
from inlay.base.sampling import initial_noise, sample, to_uint8
from inlay.base.stable_diffusion import StableDiffusion, load_base
from inlay.data.dataset import Dataset, load_dataset
from inlay.data.views import center_view, pixels
from inlay.errors import ConfigError
from inlay.methods import Attachment, Method
from inlay.objective.path import Path as NoisePath
from inlay.randomness import derive
from inlay.run.config import JobConfig, PretrainConfig, RunConfig
from inlay.run.load import config_hash, read_run_file, to_yaml, validate
from inlay.run.pictures import Block, Row, draw_loss, grid, save_picture
from inlay.run.record import command_line, hardware, now, read_record, versions, write_record
from inlay.train.diffusion import Diffusion
from inlay.train.loop import Loop, Outcome, Progress

RUN_FILE = "run.yaml"
PIPELINE = "pipeline"


class Reporter(Protocol):
    """Told how a run goes. The command line draws progress bars; a library user may want silence."""

    def phase(self, text: str) -> None:
        """Something begins."""
        ...

    def note(self, text: str) -> None:
        """The user should know this."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """Work before or after training goes on."""
        ...

    def step(self, state: Progress) -> None:
        """A training step is done."""
        ...


class Silent:
    """Says nothing."""

    def phase(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def progress(self, what: str, done: int, total: int) -> None: ...
    def step(self, state: Progress) -> None: ...


@dataclass
class Result:
    """A finished or stopped run."""

    directory: Path
    record: dict[str, Any]
    repeated: bool = False
    """Whether the directory held the finished run already, so that nothing was done."""
    main: bool = True
    """Whether this is the process that wrote the result; of several, one is."""

    @property
    def finished(self) -> bool:
        """Whether the run's budget was spent."""
        return self.record["status"] == "done"


def attach(methods: Sequence[Method], base: StableDiffusion, seed: int) -> list[Attachment]:
    """Attach methods to a base in order; what they initialise at random follows from the seed."""
    attachments = []
    for index, method in enumerate(methods):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "attach", index))
            attachments.append(method.attach(base.components))
    return attachments


def check(config: JobConfig) -> Architecture:
    """Find out what can be found out about a run's base, methods and objective without loading weights.

    Raises:
        ConfigError: the base is not found, or the objective does not fit it.
        TargetError: a method addresses what the base does not have.
    """
    architecture = read_architecture(config.base, locate(config.base), config.scratch)
    parts = architecture.meta()
    for method in config.methods:
        method.attach(parts)
    config.objective.resolved(architecture.prediction).weight_table(
        NoisePath.from_alphas_cumprod(architecture.alphas_cumprod())
    )
    return architecture


def execute(config: JobConfig, directory: Path, reporter: Reporter | None = None) -> Result:
    """Run a job to its end, or go on with it where it was stopped.

    Args:
        config: a :class:`RunConfig` or a :class:`PretrainConfig`.
        directory: the run directory; made when absent. One that holds an unfinished run of the same configuration
            goes on from its latest checkpoint, a finished one is returned as it is; any other that is not empty is
            refused.
        reporter: told how it goes.

    Raises:
        InlayError: see the kinds in :mod:`inlay.errors`; nothing but the run directory has been written.
    """
    reporter = reporter or Silent()
    finished = _check_directory(config, directory)
    if finished is not None:
        return Result(directory, finished, repeated=True)
    architecture = check(config)
    dataset = load_dataset(config.data, architecture.resolution, config.seed)
    mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[config.train.precision]
    accelerator = Accelerator(
        # Said outright, or several processes on a machine without a GPU would each take themselves for the only one.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=mixed,
        log_with=_trackers(config) or None,  # pyright: ignore[reportArgumentType] - a list is invariant
        project_dir=str(directory),
        step_scheduler_with_optimizer=False,
    )
    if not accelerator.is_main_process:
        reporter = Silent()
    for note in dataset.notes:
        reporter.note(note)
    if accelerator.is_main_process:
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / RUN_FILE, to_yaml(config))
    accelerator.wait_for_everyone()
    job = Job(config, directory, dataset, accelerator, reporter)
    return job.run()


class Job:
    """One run in one process."""

    def __init__(
        self, config: JobConfig, directory: Path, dataset: Dataset, accelerator: Accelerator, reporter: Reporter
    ):
        """Load the base and attach the methods."""
        self.config = config
        self.directory = directory
        self.dataset = dataset
        self.accelerator = accelerator
        self.reporter = reporter
        self.main = accelerator.is_main_process
        reporter.phase(f"loading {config.base.model}")
        self.base = load_base(config.base, config.scratch, config.seed)
        if isinstance(config, PretrainConfig) and config.objective.prediction != "auto":
            self.base.architecture.scheduler["prediction_type"] = config.objective.prediction
        self.attachments = attach(config.methods, self.base, config.seed)
        self.base.to(accelerator.device)
        if config.train.precision != "fp32":
            self.base.cast_frozen({"bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision])
        if config.train.gradient_checkpointing:
            self.base.unet.enable_gradient_checkpointing()
        tuned = frozenset().union(*(attachment.components for attachment in self.attachments))
        self.diffusion = Diffusion(self.base, dataset, config.objective, config.seed, tuned)
        self.parameters = {
            f"{index}.{name}": parameter
            for index, attachment in enumerate(self.attachments)
            for name, parameter in attachment.parameters().items()
        }
        for part in tuned:
            self.base.components[part].train()
        prompts = config.preview.prompts or tuple(dict.fromkeys(example.caption for example in dataset.examples))[:4]
        self.prompts = [prompt for prompt in prompts for _ in range(config.preview.pictures)]
        for prompt in self.base.overlong(list(prompts)):
            reporter.note(f"the text encoder sees only the beginning of the prompt {prompt!r}")

    def run(self) -> Result:
        """Train, draw, save."""
        config, directory, reporter = self.config, self.directory, self.reporter
        started = now()
        trainable = sum(parameter.numel() for parameter in self.parameters.values())
        with self.accelerator.main_process_first(), self.accelerator.autocast(), self.base.evaluating():
            self.diffusion.build_caches(reporter.progress)
        before = self._draw_before()
        loop = Loop(
            config.train,
            self.parameters,
            config.learning_rate,
            config.seed,
            self.dataset.images_per_epoch,
            directory,
            self.accelerator,
            f"{config.identity()} {self.dataset.hash} {self.base.file_hash}",
        )
        if _trackers(config):
            self.accelerator.init_trackers("logs")

        def losses(step: int, part: slice) -> torch.Tensor:
            return self.diffusion.losses(self._batch(step), step, part)

        def names(step: int, part: slice) -> list[str]:
            return [self.dataset.examples[item.example_index].id for item in self._batch(step).items[part]]

        def after_step(step: int) -> None:
            if config.preview.every and step % config.preview.every == 0 and self.main:
                with loop.averaged():
                    self._preview(step)

        def validate() -> float | None:
            with self.base.evaluating(), self.accelerator.autocast():
                return self.diffusion.validation_loss()

        reporter.phase("training")
        outcome = loop.run(losses, names, reporter.step, after_step, validate)
        record = self._record(started, outcome, trainable)
        with ExitStack() as stack:
            stack.enter_context(loop.averaged())
            if self.main and not outcome.stopped:
                self._finish(record, before)
        if self.main:
            write_record(directory, record)
            if not outcome.stopped:
                shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        self.accelerator.end_training()
        return Result(directory, record, main=self.main)

    def _batch(self, step: int) -> Any:
        return self.dataset.batch(self.config.seed, step, self.config.train.batch_size)

    def _sample(self) -> torch.Tensor:
        preview = self.config.preview
        side = self.dataset.resolution
        seeds = [derive(preview.seed, "preview", number) for number in range(preview.pictures)]
        noise = initial_noise(self.base, seeds, (side, side))
        noise = noise.repeat(len(self.prompts) // preview.pictures, 1, 1, 1)
        with self.accelerator.autocast():
            return sample(
                self.base,
                self.prompts,
                noise,
                preview.steps,
                preview.guidance,
                preview.negative_prompt,
                progress=lambda done, total: self.reporter.progress("drawing previews", done, total),
            )

    def _draw_before(self) -> torch.Tensor | None:
        """Return the base's own pictures; None where there is no base to show."""
        if not self.main or self.config.scratch is not None:
            return None
        with ExitStack() as stack:
            for attachment in self.attachments:
                stack.enter_context(attachment.disabled())
            return self._sample()

    def _preview(self, step: int) -> None:
        pictures = self._sample()
        blocks = self._blocks(f"step {step}", pictures)
        save_picture(grid(blocks), self.directory / "previews" / f"step-{step:08d}.png")

    def _blocks(self, heading: str, pictures: torch.Tensor, before: torch.Tensor | None = None) -> list[Row]:
        count = self.config.preview.pictures
        rows = []
        for first in range(0, len(self.prompts), count):
            part = slice(first, first + count)
            blocks = [] if before is None else [Block("before", list(before[part].numpy()))]
            blocks.append(Block(heading, list(pictures[part].numpy())))
            rows.append(Row(self.prompts[first], blocks))
        return rows

    def _finish(self, record: dict[str, Any], before: torch.Tensor | None) -> None:
        """Save the result, its samples and its loss curve."""
        self.reporter.phase("saving")
        config, directory = self.config, self.directory
        record["files"] = self._save_result(record)
        record["costs"]["result_bytes"] = sum(_size(directory / name) for name in record["files"])
        shown = self.dataset.examples[: 2 * config.preview.pictures]
        squares = [pixels(example, center_view(example, self.dataset.size(example))) for example in shown]
        training = [to_uint8(square[None])[0].numpy() for square in squares]
        rows = [Row("pictures it was trained on", [Block(f"{len(shown)} of {len(self.dataset)}", training)])]
        rows += self._blocks("after" if before is not None else "samples", self._sample(), before)
        save_picture(grid(rows), directory / "samples.png")
        draw_loss(read_trace(directory), directory / "loss.png")

    def _save_result(self, record: dict[str, Any]) -> list[str]:
        if any(method.result == "pipeline" for method in self.config.methods):
            # Full tuning changed the base's own weights. What stacks on it is folded in: one model comes out.
            for attachment in reversed(self.attachments):
                attachment.merge()
            unfinished = self.directory / f".{PIPELINE}.{os.getpid()}"
            self.base.save_pipeline(unfinished)
            os.replace(unfinished, self.directory / PIPELINE)
            return [PIPELINE]
        files = []
        for index, attachment in enumerate(self.attachments):
            path = method_file(self.directory, index, attachment.method)
            write_tensors(
                path, attachment.state(), {**attachment.metadata(), **self._metadata(attachment.method, record)}
            )
            files.append(str(path.relative_to(self.directory)))
        return files

    def _metadata(self, method: Method, record: dict[str, Any]) -> dict[str, str]:
        return {
            "inlay.version": record["versions"]["inlay"],
            "inlay.method": method.model_dump_json(),
            "inlay.base": self.config.base.model,
            "inlay.base_hash": str(self.base.file_hash),
            "inlay.config_hash": record["config_hash"],
            "inlay.trigger": self.config.data.prompt or "",
            "inlay.steps": str(record["costs"]["steps"]),
        }

    def _record(self, started: str, outcome: Outcome, trainable: int) -> dict[str, Any]:
        config, dataset = self.config, self.dataset
        total = sum(parameter.numel() for parameter in self.base.unet.parameters())
        validation = [{"step": step, "loss": loss} for step, loss in outcome.validation]
        metrics: dict[str, Any] = {"smoothed_loss": outcome.smoothed_loss, "validation_loss": None}
        reasons = {}
        if validation:
            metrics["validation_loss"] = validation[-1]["loss"]
        else:
            reasons["validation_loss"] = "no pictures were held out (data.validation)"
        return {
            "status": "stopped" if outcome.stopped else "done",
            "kind": "tune" if isinstance(config, RunConfig) else "pretrain",
            "started": started,
            "ended": now(),
            "command": command_line(),
            "config": config.model_dump(mode="json"),
            "config_hash": config_hash(config),
            "data": {
                "hash": dataset.hash,
                "pictures": len(dataset),
                "held_out": len(dataset.validation),
                "resolution": dataset.resolution,
                "skipped": [vars(skipped) for skipped in dataset.skipped],
            },
            "base": {"name": self.base.name, "hash": self.base.file_hash, "prediction": self.base.prediction},
            "versions": versions(),
            "hardware": hardware(),
            "processes": self.accelerator.num_processes,
            "costs": {
                "trainable_parameters": trainable,
                "denoiser_parameters": total,
                "steps": outcome.steps,
                "images_seen": outcome.steps * config.train.batch_size,
                "training_seconds": round(outcome.seconds, 3),
                "seconds_per_step": round(outcome.seconds / max(1, outcome.steps), 5),
                "peak_bytes": outcome.peak_bytes,
                "result_bytes": None,
            },
            "resumed_from_step": outcome.resumed_from,
            "metrics": metrics,
            "missing": reasons,
            "files": [],
        }


def method_file(directory: Path, index: int, method: Method) -> Path:
    """Return where the ``index``-th method of a run is saved."""
    return directory / method.file_name if index == 0 else directory / f"stack-{index}" / method.file_name


def read_trace(directory: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's trace, one a step."""
    lines = (directory / "trace.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def load_run(directory: Path) -> tuple[StableDiffusion, list[Attachment]]:
    """Load the tuned model of a finished run: its base, and its methods attached with what they learned.

    Raises:
        ConfigError: the directory holds no finished run.
        ArtifactError: a file is broken or belongs to another base.
    """
    config = read_config(directory)
    record = read_record(directory)
    if record is None or record["status"] != "done":
        raise ConfigError(f"{directory}: the run has not finished; go on with `inlay tune {directory / RUN_FILE}`")
    if record["files"] == [PIPELINE]:
        return load_base(config.base.model_copy(update={"model": str(directory / PIPELINE)})), []
    base = load_base(config.base)
    if base.file_hash != record["base"]["hash"]:
        raise ConfigError(f"{directory}: tuned on another {config.base.model}; its weights have changed since")
    attachments = attach(config.methods, base, config.seed)
    for index, attachment in enumerate(attachments):
        attachment.load(read_tensors(method_file(directory, index, attachment.method))[0])
    return base, attachments


def read_config(directory: Path) -> JobConfig:
    """Return the resolved configuration of a run directory.

    Raises:
        ConfigError: there is none.
    """
    path = directory / RUN_FILE
    if not path.is_file():
        raise ConfigError(f"{directory}: not a run directory; it has no {RUN_FILE}")
    data = read_run_file(path)
    return validate(PretrainConfig if "denoiser" in data else RunConfig, data, path)


def _check_directory(config: JobConfig, directory: Path) -> dict[str, Any] | None:
    """Refuse a directory in which this run cannot be; return the record of the same run when it is finished there."""
    if not directory.exists():
        return None
    if not directory.is_dir():
        raise ConfigError(f"output={directory}: a file of that name is in the way")
    if not (directory / RUN_FILE).exists():
        if any(directory.iterdir()):
            raise ConfigError(f"output={directory}: the directory holds other files; give a new or empty one")
        return None
    earlier = read_config(directory)
    if earlier.identity() != config.identity():
        raise ConfigError(
            f"output={directory}: holds a run with other settings ({', '.join(_differing(earlier, config))}); "
            "give another output=..., or the same settings to go on with it"
        )
    record = read_record(directory)
    return record if record is not None and record["status"] == "done" else None


def _differing(earlier: JobConfig, config: JobConfig) -> list[str]:
    def flat(value: Any, key: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {key: value}
        return {
            name: v for child, inner in value.items() for name, v in flat(inner, f"{key}.{child}".strip(".")).items()
        }

    one, other = flat(earlier.model_dump(mode="json")), flat(config.model_dump(mode="json"))
    return sorted(name for name in one | other if one.get(name) != other.get(name) and name != "output")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _trackers(config: JobConfig) -> list[str]:
    if config.train.trackers is not None:
        return list(config.train.trackers)
    from importlib.util import find_spec

    return ["tensorboard"] if find_spec("tensorboard") else []
