"""Between inlay's runs and files and those of other tools: what `inlay export` and `inlay import` do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from inlay.artifacts.blueprint import Blueprint, fitting
from inlay.artifacts.formats import FORMATS, recognise
from inlay.artifacts.layers import LowRank, Updates
from inlay.artifacts.state import glance
from inlay.errors import ConfigError
from inlay.methods import Lora
from inlay.methods.targets import TEXT_TARGETS
from inlay.run.blueprints import base_blueprint, candidates
from inlay.run.config import RunConfig
from inlay.run.directory import RUN_FILE, read_config
from inlay.run.merge import files_of
from inlay.run.record import read_record


@dataclass(frozen=True)
class Opened:
    """A file that has been read."""

    path: Path
    format: str
    """Its name in FORMATS."""
    contents: Any
    """What its format says that it holds."""
    blueprints: list[Blueprint]
    """The models that it may belong to."""


def open_file(source: Path, base: str | None = None) -> Opened:
    """Read a file of any format, or the result of a finished run.

    Args:
        source: the file, or the run directory.
        base: the model that it belongs to, by the name that run files have for it or `sdxl`; by default the run's, or
            the one that the file names, or whichever published family has the layers.

    Raises:
        ArtifactError: it cannot be read, or fits none of the models.
        ConfigError: a run has not finished or has several results, or there is no such base.
    """
    path, facts, models = source, {}, []
    if (source / RUN_FILE).is_file():
        files = files_of(source)
        if len(files) > 1:
            raise ConfigError(f"{source}: the run has several results; name one: {', '.join(map(str, files))}")
        (path,) = files
        config = read_config(source)
        facts = training_facts(source)
        if base is None:
            models = [base_blueprint(config.base)]
    format_name = recognise(path)
    if FORMATS[format_name].contents == "updates":
        models = models or candidates(base, glance(path)[1] if path.is_file() else {})
    contents = FORMATS[format_name].read(path, models)
    if isinstance(contents, Updates):
        models = fitting(contents.layers, models, str(path))
        contents = replace(contents, metadata={**contents.metadata, **facts})
    return Opened(path, format_name, contents, models)


def export(opened: Opened, format_name: str, output: Path, force: bool = False) -> Path:
    """Write what a file holds in another format.

    Args:
        opened: the file.
        format_name: a key of FORMATS.
        output: where to.
        force: replace what is there.

    Raises:
        ConfigError: there is no such format, it is for other contents, or something is at `output` already.
        ArtifactError: the format cannot hold it; nothing has been written.
    """
    check_format(format_name)
    target, holds = FORMATS[format_name], FORMATS[opened.format].contents
    if target.contents != holds:
        fit = [name for name, one in FORMATS.items() if one.contents == holds]
        raise ConfigError(
            f"--format {format_name}: holds {target.contents}, and {opened.path} holds {holds}; allowed for it: "
            f"{', '.join(fit)}"
        )
    if not force and (output.exists() or output.is_symlink()):
        raise ConfigError(f"{output} exists already; give another --output, or --force to replace it")
    if output.resolve() == opened.path.resolve():
        raise ConfigError(f"--output {output}: is the file that is read; give another")
    if target.suffix and output.is_dir():
        raise ConfigError(f"--output {output}: is a directory; this format is one file, *{target.suffix}")
    return target.write(output, opened.contents, opened.blueprints)


def check_format(name: str) -> None:
    """Refuse a name that no format has.

    Raises:
        ConfigError: with those that there are.
    """
    if name not in FORMATS:
        raise ConfigError(f"--format {name}: no such format; allowed: {', '.join(FORMATS)}")


def native_format(opened: Opened) -> str:
    """Return the format in which inlay itself keeps such contents: the first that holds them."""
    holds = FORMATS[opened.format].contents
    return next(name for name, one in FORMATS.items() if one.contents == holds)


def adopt(opened: Opened, base: str | None) -> Opened:
    """Return a foreign file's contents with what inlay's own file says beside the tensors.

    Where every layer is LoRA of one rank and scale, that is the settings of the method `lora` which has exactly these
    layers, so that the file can be attached and trained further; see :func:`as_lora`.
    """
    if not isinstance(opened.contents, Updates):
        return opened
    updates = opened.contents
    metadata = {key: value for key, value in updates.metadata.items() if key != "inlay.method"}
    metadata |= {"inlay.imported_from": opened.path.name, "inlay.imported_format": opened.format}
    if base is not None:
        metadata["inlay.base"] = base
    method = as_lora(updates, opened.blueprints)
    if method is not None:
        metadata["inlay.method"] = method.model_dump_json()
    return replace(opened, contents=Updates(updates.layers, metadata))


def as_lora(updates: Updates, blueprints: list[Blueprint]) -> Lora | None:
    """Return the settings of the method `lora` that has exactly these layers; None where there are none."""
    layers = updates.layers
    unet = sorted(layer.removeprefix("unet.") for layer in layers if layer.startswith("unet."))
    text = frozenset(layer for layer in layers if not layer.startswith("unet."))
    shapes = blueprints[0].shapes
    settings: dict[frozenset[str], bool | Literal["transformer"]] = {
        _text_layers(shapes, "transformer"): "transformer",
        _text_layers(shapes, "attention"): True,
        frozenset(): False,
    }
    kinds = {
        (update.rank, update.alpha, update.rslora, update.magnitude is None)
        for update in layers.values()
        if isinstance(update, LowRank) and update.mid is None
    }
    plain = all(isinstance(update, LowRank) and update.mid is None for update in layers.values())
    if not plain or len(kinds) != 1 or not unet or text not in settings:
        return None
    ((rank, alpha, rslora, without_magnitude),) = kinds
    if any(update.down.dim() != len(shapes[name]) for name, update in layers.items() if isinstance(update, LowRank)):
        return None
    return Lora(
        rank=rank,
        alpha=alpha,
        rslora=rslora,
        dora=not without_magnitude,
        targets="|".join(re.escape(path) for path in unet),
        text_encoder=settings[text],
    )


def _text_layers(shapes: Mapping[str, object], preset: str) -> frozenset[str]:
    """Return the layers of all text encoders that a preset means."""
    return frozenset(
        layer for layer in shapes if re.fullmatch(rf"text_encoder(_2)?\..*\.({TEXT_TARGETS[preset]})", layer)
    )


def training_facts(directory: Path) -> dict[str, str]:
    """Return what a run's settings and record say, in the fields of kohya's header."""
    config, record = read_config(directory), read_record(directory)
    facts: dict[str, Any] = {
        "ss_seed": config.seed,
        "ss_learning_rate": config.learning_rate,
        "ss_optimizer": config.train.optimizer.name,
        "ss_batch_size_per_device": config.train.batch_size,
    }
    weighting = config.objective.weighting
    if weighting.name == "min_snr":
        facts["ss_min_snr_gamma"] = weighting.gamma
    if isinstance(config, RunConfig) and record is not None:
        side = record["data"]["resolution"]
        facts |= {
            "ss_resolution": f"({side}, {side})",
            "ss_steps": record["costs"]["steps"],
            "ss_training_started_at": datetime.fromisoformat(record["started"]).timestamp(),
            "ss_training_finished_at": datetime.fromisoformat(record["ended"]).timestamp(),
        }
    return {key: str(value) for key, value in facts.items()}


def default_output(opened: Opened, format_name: str) -> Path:
    """Return the name of an exported file, in the current directory: the source's, or its run's, and the format."""
    source = opened.path
    stem = source.parent.name if (source.parent / RUN_FILE).is_file() else source.stem
    suffix = FORMATS[format_name].suffix if format_name in FORMATS else ""
    return Path(f"{stem}-{format_name}{suffix}")
