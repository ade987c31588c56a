"""What can be found wrong with a job before any weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence

from inlay.base.contract import BaseArchitecture
from inlay.base.families import read_base
from inlay.base.locate import locate
from inlay.errors import ConfigError
from inlay.methods import merge_all
from inlay.run.config import JobConfig
from inlay.run.evaluation.early import check_evaluation
from inlay.run.start import check_start
from inlay.train.noise_path import noise_path
from inlay.train.schedules import multiplier


def check(config: JobConfig) -> BaseArchitecture:
    """Hold a job's settings against its base's configuration files, and its methods against the meta device.

    Raises:
        ConfigError: the base is not found, objective or picture sizes do not fit it, or a tracker or the optimizer is
            not installed.
        ArtifactError: a file to start from is not the method's, or of another base's size.
        TargetError: a method addresses what the base does not have, or a stack that has to be saved as one model cannot
            be merged.
    """
    architecture = read_base(config.base, locate(config.base), config.scratch)
    check_sizes(config, architecture)
    check_objective(config, architecture)
    check_trackers(config)
    config.train.optimizer.check_installed()
    check_evaluation(config)
    parts = architecture.meta()
    attachments = [method.attach(parts) for method in config.methods]
    check_start(config, attachments)
    if any(method.result == "pipeline" for method in config.methods):
        merge_all(attachments)  # as the end of the run will do: better refused now than then
    return architecture


def check_sizes(config: JobConfig, architecture: BaseArchitecture) -> None:
    """Refuse pictures that autoencoder and denoiser cannot halve or cut as they do.

    Raises:
        ConfigError: names the multiple, or the one size, that is allowed.
    """
    if architecture.one_size and config.data.buckets:
        raise ConfigError("data.buckets: this denoiser has learned positions and takes pictures of one shape only")
    if architecture.one_size and config.data.resolution not in (None, architecture.resolution):
        raise ConfigError(
            f"data.resolution={config.data.resolution}: this denoiser has learned positions and takes pictures of "
            f"{architecture.resolution} pixels only, by its sample_size"
        )
    unit = architecture.granularity
    own = "denoiser.sample_size gives pictures of" if config.scratch else "the base's own resolution,"
    sizes = {
        f"data.resolution={config.data.resolution}": config.data.resolution,
        f"data.bucket_step={config.data.bucket_step}": config.data.bucket_step,
    }
    if config.data.resolution is None:
        sizes[f"{own} {architecture.resolution} pixels"] = architecture.resolution
    for what, size in sizes.items():
        if size is not None and size % unit:
            low = size // unit * unit
            near = f"{low} or {low + unit}" if low else str(unit)
            raise ConfigError(
                f"{what}: must be a multiple of {unit} pixels, because this base cuts a picture's sides "
                f"into pieces of {unit}; the nearest are {near}"
            )


def check_objective(config: JobConfig, architecture: BaseArchitecture) -> None:
    """Refuse an objective that the base's noise schedule or prediction rules out.

    Raises:
        ConfigError: with the reason.
    """
    wanted = config.objective.prediction
    if config.scratch is None and wanted not in ("auto", architecture.prediction):
        raise ConfigError(
            f"objective.prediction={wanted}, but the base predicts {architecture.prediction}: training it towards "
            "another target would change what its output means, and no saved adapter could say so; leave it at auto, "
            "or state in base.prediction what the base predicts where its files are wrong"
        )
    config.objective.resolved(architecture.prediction).weight_table(noise_path(architecture))


def overlong_note(captions: Sequence[str], long: Sequence[str], limit: int) -> str:
    """Return what to say about the captions in ``long``, which the text encoder does not see to their end."""
    return (
        f"{len(long):,} of {len(captions):,} captions are longer than the {limit} tokens that the text encoder reads, "
        f"and lose their end; the first is {long[0][:60]!r}..."
    )


def check_trackers(config: JobConfig) -> None:
    """Refuse trackers that Accelerate does not know or whose package is missing; it would pass over the latter.

    Raises:
        ConfigError: with the names that are allowed.
    """
    if not config.train.trackers:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known, installed = sorted(map(str, LOGGER_TYPE_TO_CLASS)), sorted(map(str, get_available_trackers()))
    for name in config.train.trackers:
        if name not in known:
            raise ConfigError(f"train.trackers: {name!r} is not a tracker; allowed: {', '.join(known)}")
        if name not in installed:
            here = ", ".join(installed) or "none"
            raise ConfigError(f"train.trackers: {name!r} is not installed (pip install {name}); installed: {here}")


def check_length(config: JobConfig, images_per_epoch: int, processes: int) -> None:
    """Refuse a batch that cannot be spread over the processes, and a warm-up longer than the run.

    Raises:
        ConfigError: with the values that clash.
    """
    config.train.micro_batch(processes)
    multiplier(config.train.schedule, 0, config.train.total_steps(images_per_epoch), progress=0.0)
