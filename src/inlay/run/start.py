"""What an earlier run learned, as the beginning of another: `start_from` of a run file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.base.contract import Base
from inlay.base.weights import hash_of
from inlay.errors import ArtifactError, ConfigError
from inlay.files import read_tensors
from inlay.methods import Attachment, LoHa, LoKr, Lora, Method
from inlay.run.adapters import stored_method
from inlay.run.config import JobConfig, RunConfig
from inlay.run.merge import files_of
from inlay.run.start_factors import begin_factors
from inlay.run.start_lora import begin_lora

if TYPE_CHECKING:
    from torch import Tensor


def start_files(config: JobConfig) -> list[Path]:
    """Return the files that a job's methods start from, one for each; none where they start anew.

    Raises:
        ConfigError: there is no such file or finished run, or their number is not that of the methods.
    """
    if not isinstance(config, RunConfig) or not config.start_from:
        return []
    files = []
    for name in config.start_from:
        path = Path(name).expanduser()
        if not path.exists():
            raise ConfigError(f"start_from: {name}: no such file or run directory (looked in {Path.cwd()})")
        files += files_of(path)
    if len(files) != len(config.methods):
        raise ConfigError(
            f"start_from: {len(files)} saved ({', '.join(map(str, files))}), but the run trains "
            f"{', '.join(method.name for method in config.methods)}; give one for each, in their order"
        )
    return files


def check_start(config: JobConfig, attachments: Sequence[Attachment]) -> None:
    """Hold the files that a job starts from against its methods, which may be on the meta device.

    Raises:
        ConfigError: as :func:`start_files`.
        ArtifactError: a file cannot be read, is of another method or of other settings, or does not fit.
    """
    for attachment, path in zip(attachments, start_files(config), strict=False):  # one for each, or none
        _beginning(attachment, path, config)


def start(config: JobConfig, attachments: Sequence[Attachment], base: Base) -> tuple[dict[str, str], list[str]]:
    """Let methods take over what they start from.

    Args:
        config: the job.
        attachments: its methods, attached to the base.
        base: the base.

    Returns:
        The sha256 of each file, or over the files of a directory, by its path; and what the user should know: that one
        was learned on other weights, which may be meant, or that some of the layers to be trained are not in it.

    Raises:
        ConfigError: as :func:`start_files`.
        ArtifactError: as :func:`check_start`.
    """
    hashes, notes = {}, []
    for attachment, path in zip(attachments, start_files(config), strict=False):  # one for each, or none
        beginning = _beginning(attachment, path, config)
        attachment.load(beginning.tensors)
        if path.is_dir():
            hashes[str(path)] = hash_of(sorted(filter(Path.is_file, path.rglob("*"))))
        else:
            hashes[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        if beginning.fresh:
            notes.append(f"start_from: {path} lacks {beginning.fresh} of the layers that are trained; they begin anew")
        if beginning.header.get("inlay.base_hash") not in (None, str(base.file_hash)):
            notes.append(f"start_from: {path} was learned on other weights than those of {base.name}")
    return hashes, notes


_OF_ANY: dict[type[Method], Callable[..., tuple]] = {Lora: begin_lora, LoHa: begin_factors, LoKr: begin_factors}
"""The methods that begin with files of any program and of other settings too, and how."""


@dataclass(frozen=True)
class _Beginning:
    """What a method begins with."""

    tensors: Mapping[str, Tensor]
    header: Mapping[str, str]
    """Of the file."""
    fresh: int = 0
    """Layers that the file lacks."""


def _beginning(attachment: Attachment, path: Path, config: JobConfig) -> _Beginning:
    """Return what a method begins with: a file that inlay wrote with the same settings as it is, else what fits of any.

    Raises:
        ArtifactError: as :func:`check_start`.
    """
    try:
        method, stored = attachment.method, stored_method(path)
        differing = _differences(stored, method) if stored is not None and stored.name == method.name else None
        begin = _OF_ANY.get(type(method))
        if begin is not None and (stored is None or differing):
            return _Beginning(*begin(path, config.base, method, attachment.state()))
        if stored is not None and differing == []:
            tensors, header = read_tensors(path)
            try:
                attachment.refuse_misfit(tensors)
            except ArtifactError as error:
                raise ArtifactError(f"{path}: {error}") from None
            return _Beginning(tensors, header)
        if stored is None:
            read_tensors(path)  # which says so of a broken file
            raise ArtifactError(
                f"{path}: not a file that says how inlay made it; `inlay import` makes one of other programs' "
                "hypernetworks and embeddings, and `inlay merge` folds changes of weights into a base, to be tuned"
            )
        if differing:
            raise ArtifactError(f"{path}: was trained with {'; '.join(differing)}. Make them the same")
        raise ArtifactError(f"{path}: holds {stored.name}, but the method is {method.name}")
    except ArtifactError as error:
        raise ArtifactError(f"start_from: {error}") from None


def _differences(stored: Method, method: Method) -> list[str]:
    theirs, ours = stored.model_dump(mode="json"), method.model_dump(mode="json")
    return [f"method.{key}={theirs[key]}, not {ours[key]}" for key in ours if theirs[key] != ours[key]]
