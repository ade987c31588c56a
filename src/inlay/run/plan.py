"""What a job would train, need and cost, found out without loading weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.base.architecture import TextArchitecture
from inlay.base.contract import BaseArchitecture
from inlay.base.families import read_base
from inlay.base.locate import Location, locate
from inlay.base.prompts import Prompts, tokenizer_here
from inlay.data.dataset import Dataset, load_dataset
from inlay.data.settings import DataSettings
from inlay.errors import DataError
from inlay.objective.effective import EffectiveWeights, effective_weights
from inlay.run.attach import attach, introduce
from inlay.run.check import check_objective, check_sizes, check_trackers, overlong_note
from inlay.run.class_images import ClassImagesPlan, plan_class_images
from inlay.run.classes import with_classes
from inlay.run.config import JobConfig
from inlay.run.disk import Disk, disk
from inlay.run.evaluation.early import check_evaluation, extractors, few_pictures
from inlay.run.evaluation.prompts import questions
from inlay.run.footprint import Memory, Work, footprint
from inlay.run.machine import Machine, this_machine
from inlay.run.places import Group, block, groups, kind
from inlay.run.start import check_start
from inlay.run.words import check_captions
from inlay.train.noise_path import noise_path
from inlay.train.precision import keep_frozen

if TYPE_CHECKING:
    from torch import Tensor, nn

    from inlay.base.contract import Base
    from inlay.methods import Attachment
    from inlay.objective.path import Path as NoisePath


@dataclass(frozen=True)
class MethodPlan:
    """One of the methods that would be attached."""

    name: str
    components: tuple[str, ...]
    """The parts of the base whose output it changes."""
    trainable_parameters: int
    trainable_tensors: int
    learning_rate: float


@dataclass(frozen=True)
class DataPlan:
    """The pictures; counts are null where the source cannot be examined here."""

    source: str
    pictures: int | None
    held_out: int | None
    skipped: tuple[str, ...]
    images_per_epoch: int | None
    hash: str | None
    missing: str | None
    """Why the counts are null."""
    prior: ClassImagesPlan | None
    """The class pictures, where there is a section `data.prior`."""


@dataclass(frozen=True)
class Effective:
    """Settings as they act, where the run file leaves them to base, method or data."""

    learning_rate: float
    prediction: str
    zero_terminal_snr: bool
    timesteps: int
    weight_range: tuple[float, float]
    """Least and greatest weight of the loss over the timesteps."""
    resolution_pixels: int
    multiple_pixels: int
    """Of which the sides of pictures must be multiples."""
    latent_shape: tuple[int, int, int]
    text_shape: tuple[int, int] | None
    """(tokens, width) of text states; null for a model without text."""
    micro_batch_images: int
    """Pictures that go through the denoiser together, in one process; class pictures counted."""
    steps: int | None
    """Null when the clock or an unknown number of pictures ends the run."""
    epochs: float | None
    images: int | None
    """Pictures seen, repetitions counted; class pictures, as many again, not counted."""


@dataclass(frozen=True)
class Plan:
    """Everything that :func:`make_plan` finds out. The names are those of ``inlay plan --json``."""

    config_hash: str
    base: str
    base_parameters: int
    """Of the parts that methods change, the denoiser always among them."""
    part_parameters: dict[str, int]
    """Of every part of the base."""
    trainable_parameters: int
    trainable_percent: float
    """Of ``base_parameters``."""
    methods: tuple[MethodPlan, ...]
    blocks: tuple[Group, ...]
    kinds: tuple[Group, ...]
    effective: Effective
    objective: EffectiveWeights
    data: DataPlan
    work: Work
    memory: Memory
    disk: Disk
    machine: Machine
    fits: bool
    """Whether the peak memory is available on this machine now."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))


def make_plan(config: JobConfig, machine: Machine | None = None) -> Plan:
    """Put a job together on the meta device and count what it would train, need and cost.

    Nothing is loaded but the base's configuration and, where they lie here, the pictures.

    Args:
        config: the job.
        machine: where it would run; by default here.

    Raises:
        ConfigError: the base is not found, or objective or resolution do not fit it.
        TargetError: a method addresses what the base does not have.
        ArtifactError: a file to start from does not fit.
        DataError: the pictures are there, but not as the data section says.
    """
    location = locate(config.base, weights=False)
    architecture = read_base(config.base, location, config.scratch)
    check_sizes(config, architecture)
    check_evaluation(config)
    dataset, reason = _dataset(config.data, architecture, config.seed)
    if dataset is not None:
        architecture = read_base(config.base, location, with_classes(config, dataset))
    check_objective(config, architecture)
    check_trackers(config)
    config.train.optimizer.check_installed()
    objective = config.objective.resolved(architecture.prediction)
    path = noise_path(architecture)
    weights = objective.weight_table(path)
    resolution = config.data.resolution or architecture.resolution
    base = architecture.skeleton(config.base.model)
    names = {
        id(p): f"{part}.{name}" for part, module in base.components.items() for name, p in module.named_parameters()
    }
    counts = {
        f"{part}.{n}": p.numel() for part, module in base.components.items() for n, p in module.named_parameters()
    }
    own = [p for module in base.components.values() for p in module.parameters()]
    class_images = plan_class_images(config, base, resolution, location)
    attachments = attach(config.methods, base, config.seed)
    check_start(config, attachments)
    prompts = _prompts(config, location, architecture)
    if prompts is not None:
        introduce(attachments, prompts)
        if dataset is not None:
            check_captions(attachments, prompts, (example.caption for example in dataset.examples))
    keep_frozen(base, config.train.precision, config.train.quantize)
    machine = machine or this_machine()
    steps = config.train.total_steps(dataset.images_per_epoch) if dataset else config.train.steps
    images = steps * config.train.batch_size if steps is not None else None
    side = resolution // architecture.downscale
    latent_shape = (architecture.channels, side, side)
    memory, work, text_itemsize = footprint(
        config, base, attachments, latent_shape, dataset, class_images, steps, machine
    )
    tuned = {"unet"}.union(*(attachment.components for attachment in attachments))
    trained = _trained(attachments, base, names)
    base_counts = {name: count for name, count in counts.items() if name.partition(".")[0] in tuned}
    trainable, total = sum(trained.values()), sum(base_counts.values())
    micro_batch = config.train.batch_size // config.train.accumulate
    if class_images is not None and not config.data.prior_apart:
        micro_batch *= 2
    return Plan(
        config_hash=config.content_hash(),
        base=config.base.model,
        base_parameters=total,
        part_parameters={
            part: sum(count for name, count in counts.items() if name.startswith(f"{part}."))
            for part in base.components
        },
        trainable_parameters=trainable,
        trainable_percent=100 * trainable / total,
        methods=tuple(map(_method, attachments, config.learning_rates)),
        blocks=groups(block, base_counts, trained),
        kinds=groups(kind, base_counts, trained),
        effective=Effective(
            learning_rate=config.learning_rate,
            prediction=objective.prediction,
            zero_terminal_snr=path.snr(_last(path)).item() == 0,
            timesteps=path.timesteps,
            weight_range=(weights.min().item(), weights.max().item()),
            resolution_pixels=resolution,
            multiple_pixels=architecture.granularity,
            latent_shape=latent_shape,
            text_shape=architecture.text_shape,
            micro_batch_images=micro_batch,
            steps=steps,
            epochs=images / dataset.images_per_epoch if dataset and images is not None else None,
            images=images,
        ),
        objective=effective_weights(objective, path),
        data=DataPlan(
            source=config.data.source,
            pictures=len(dataset) if dataset else None,
            held_out=len(dataset.validation) if dataset else None,
            skipped=tuple(skipped.id for skipped in dataset.skipped) if dataset else (),
            images_per_epoch=dataset.images_per_epoch if dataset else None,
            hash=dataset.hash if dataset else None,
            missing=reason,
            prior=class_images,
        ),
        work=work,
        memory=memory,
        disk=disk(config, attachments, own, dataset, class_images, architecture, trainable, steps, text_itemsize),
        machine=machine,
        fits=memory.peak_bytes <= machine.available_bytes,
        warnings=tuple(
            _warnings(config, location, architecture, resolution, dataset, class_images, prompts, reason, machine)
        ),
    )


def _last(path: NoisePath) -> Tensor:
    import torch

    return torch.tensor([path.timesteps - 1])


def _prompts(config: JobConfig, location: Location, architecture: BaseArchitecture) -> Prompts | None:
    """Return what reads prompts, where the base reads any and its tokenizer lies here."""
    if not isinstance(architecture, TextArchitecture):
        return None
    tokenizer = tokenizer_here(config.base, location, architecture)
    return Prompts(tokenizer, architecture.tokens) if tokenizer is not None else None


def _dataset(settings: DataSettings, architecture: BaseArchitecture, seed: int) -> tuple[Dataset | None, str | None]:
    """Return (data set, None), or (None, why not) where the source is not here: a plan can do without."""
    try:
        return load_dataset(settings, architecture.resolution, seed, architecture.granularity), None
    except DataError as error:
        if settings.source.startswith("tabletop:") or Path(settings.source).expanduser().exists():
            raise
        return None, str(error)


def _trained(attachments: Sequence[Attachment], base: Base, names: Mapping[int, str]) -> dict[str, int]:
    """Return the size of every trained parameter by its place in the base."""
    places = {id(p): f"{part}.{n}" for part, module in base.components.items() for n, p in module.named_parameters()}
    trained = {}
    for index, attachment in enumerate(attachments):
        for name, parameter in attachment.parameters().items():
            # Saved names tell where a method acts, also where its parameters lie together in a module of their own.
            speaks = name.partition(".")[0] in base.components
            place = f"{name}@{index}" if speaks else places.get(id(parameter), f"other.{index}.{name}")
            trained[names.get(id(parameter), place)] = parameter.numel()
    return trained


def _method(attachment: Attachment, learning_rate: float) -> MethodPlan:
    parameters: Iterable[nn.Parameter] = attachment.parameters().values()
    sizes = [parameter.numel() for parameter in parameters]
    parts = tuple(sorted(attachment.components))
    return MethodPlan(attachment.method.name, parts, sum(sizes), len(sizes), learning_rate)


def _warnings(
    config: JobConfig,
    location: Location,
    architecture: BaseArchitecture,
    resolution: int,
    dataset: Dataset | None,
    class_images: ClassImagesPlan | None,
    prompts: Prompts | None,
    reason: str | None,
    machine: Machine,
) -> Iterable[str]:
    if location.kind == "architecture":
        yield (
            f"{config.base.model} is an architecture without weights; to train, set base to a directory, a hub id or a "
            ".safetensors checkpoint"
        )
    if reason is not None:
        yield f"the pictures were not examined, so what depends on them is not counted: {reason}"
    if dataset is not None:
        yield from dataset.notes
        if prompts is not None:
            yield from _overlong(prompts, dataset, class_images)
    if class_images is not None and class_images.missing is not None:
        yield f"the class pictures were not examined, so what depends on them is not counted: {class_images.missing}"
    if config.scratch is None and resolution != architecture.resolution:
        yield (
            f"data.resolution={resolution}, but the base was trained at {architecture.resolution} pixels; far from it "
            "its pictures get worse"
        )
    if config.evaluate is not None and (dataset is not None or config.evaluate.prompts is not None):
        captions = [example.caption for example in dataset.examples] if dataset is not None else []
        asked = questions(config.evaluate, config, captions)
        yield from few_pictures(config.evaluate, extractors(config.evaluate, config.base.model), len(asked.prompts))
    if config.train.precision == "fp16" and machine.device == "cpu":
        yield "train.precision=fp16 is slow on a CPU; bf16 needs no scaling and is as small"
    if config.train.precision == "bf16" and not machine.fast_bf16:
        yield f"train.precision=bf16 saves memory here but no time: {machine.name} computes bf16 slower than fp32"


def _overlong(prompts: Prompts, dataset: Dataset, class_images: ClassImagesPlan | None) -> Iterable[str]:
    """Count the captions of which the text encoder would not see the end."""
    captions = list(dict.fromkeys(example.caption for example in dataset.examples))
    captions += [class_images.prompt] if class_images is not None else []
    limit = prompts.length
    long = prompts.overlong(captions)
    if long:
        yield overlong_note(captions, long, limit)
