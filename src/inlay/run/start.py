"""What an earlier run learned, as the beginning of another: `start_from` of a run file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from inlay.base.contract import Base
from inlay.errors import ArtifactError, ConfigError
from inlay.files import read_tensors
from inlay.methods import Attachment, Method
from inlay.run.adapters import stored_method
from inlay.run.attach import take_over
from inlay.run.config import JobConfig, RunConfig
from inlay.run.merge import files_of


def start_files(config: JobConfig) -> list[Path]:
    """Return the files that a job's methods start from, one for each; none where they start anew.

    Raises:
        ConfigError: there is no such file or finished run, or their number is not that of the methods.
        ArtifactError: a file is not one that its method saved with the same settings.
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
    for path, method in zip(files, config.methods, strict=True):
        try:
            _refuse_other_settings(path, method)
        except ArtifactError as error:
            raise ArtifactError(f"start_from: {error}") from None
    return files


def _refuse_other_settings(path: Path, method: Method) -> None:
    stored = stored_method(path)
    if stored is None:
        read_tensors(path)  # which says so of a broken file
        raise ArtifactError(
            f"{path}: not a file that says how inlay made it; `inlay merge` folds files of other tools into a base, "
            "which can be tuned"
        )
    if stored.name != method.name:
        raise ArtifactError(f"{path}: holds {stored.name}, but the method is {method.name}")
    theirs, ours = stored.model_dump(mode="json"), method.model_dump(mode="json")
    differing = [f"method.{key}={theirs[key]}, not {ours[key]}" for key in ours if theirs[key] != ours[key]]
    if differing:
        raise ArtifactError(f"{path}: was trained with {'; '.join(differing)}. Make them the same")


def check_start(config: JobConfig, attachments: Sequence[Attachment]) -> None:
    """Hold the files that a job starts from against its methods, which may be on the meta device.

    Raises:
        ConfigError: as :func:`start_files`.
        ArtifactError: as :func:`start_files`; or names or shapes differ.
    """
    for attachment, path in zip(attachments, start_files(config), strict=False):  # one for each, or none
        tensors, _ = read_tensors(path)
        try:
            attachment.refuse_misfit(tensors)
        except ArtifactError as error:
            raise ArtifactError(f"start_from: {path}: {error}") from None


def start(config: JobConfig, attachments: Sequence[Attachment], base: Base) -> tuple[dict[str, str], list[str]]:
    """Let methods take over what they start from.

    Args:
        config: the job.
        attachments: its methods, attached to the base.
        base: the base.

    Returns:
        The sha256 of each file by its path; and what the user should know: that one was learned on other weights, which
        may be meant.

    Raises:
        ConfigError: as :func:`start_files`.
        ArtifactError: as :func:`check_start`.
    """
    hashes, notes = {}, []
    for attachment, path in zip(attachments, start_files(config), strict=False):  # one for each, or none
        header = take_over(attachment, path)
        hashes[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        if header.get("inlay.base_hash") != str(base.file_hash):
            notes.append(f"start_from: {path} was learned on other weights than those of {base.name}")
    return hashes, notes
