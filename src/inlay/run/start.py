"""What an earlier run learned, as the beginning of another: `start_from` of a run file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from inlay.artifacts.layers import LowRank
from inlay.artifacts.state import glance
from inlay.base.contract import Base
from inlay.errors import ArtifactError, ConfigError
from inlay.files import read_tensors
from inlay.methods import Attachment, Lora, Method
from inlay.run.adapters import stored_method
from inlay.run.attach import take_over
from inlay.run.config import JobConfig, RunConfig
from inlay.run.merge import files_of
from inlay.run.start_lora import begin_with, read_loras, refuse_lora


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
        with _named():
            _read(attachment, path, config)


def start(config: JobConfig, attachments: Sequence[Attachment], base: Base) -> tuple[dict[str, str], list[str]]:
    """Let methods take over what they start from.

    Args:
        config: the job.
        attachments: its methods, attached to the base.
        base: the base.

    Returns:
        The sha256 of each file by its path; and what the user should know: that one was learned on other weights, which
        may be meant, or that some of the layers to be trained are not in it.

    Raises:
        ConfigError: as :func:`start_files`.
        ArtifactError: as :func:`check_start`.
    """
    hashes, notes = {}, []
    for attachment, path in zip(attachments, start_files(config), strict=False):  # one for each, or none
        with _named():
            loras = _read(attachment, path, config)
            if loras is None:
                take_over(attachment, path)
            else:
                assert isinstance(attachment.method, Lora)
                attachment.load(begin_with(loras, attachment.method, attachment.state()))
                notes += [f"start_from: {path}: {text}" for text in _left(loras, attachment)]
        hashes[str(path)] = _digest(path)
        learned_on = glance(path)[1].get("inlay.base_hash") if path.is_file() else None
        if learned_on not in (None, str(base.file_hash)):
            notes.append(f"start_from: {path} was learned on other weights than those of {base.name}")
    return hashes, notes


@contextmanager
def _named() -> Iterator[None]:
    """Say in errors that it is what a run starts from."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"start_from: {error}") from None


def _read(attachment: Attachment, path: Path, config: JobConfig) -> dict[str, LowRank] | None:
    """Hold a file against the method that is to start from it.

    Returns:
        None for a file that inlay wrote with the same settings, which is taken over as it is; of any other, its LoRAs.
    """
    method, stored = attachment.method, stored_method(path)
    differing = _differences(stored, method) if stored is not None and stored.name == method.name else None
    if differing == []:
        try:
            attachment.refuse_misfit(read_tensors(path)[0])
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from None
        return None
    if isinstance(method, Lora) and (stored is None or differing):
        loras = read_loras(path, config.base)
        refuse_lora(loras, method, attachment.state(), path)
        return loras
    if stored is None:
        read_tensors(path)  # which says so of a broken file
        raise ArtifactError(
            f"{path}: not a file that says how inlay made it; `inlay import` makes one of other programs' "
            "hypernetworks and embeddings, and `inlay merge` folds changes of weights into a base, which can be tuned"
        )
    if differing:
        raise ArtifactError(f"{path}: was trained with {'; '.join(differing)}. Make them the same")
    raise ArtifactError(f"{path}: holds {stored.name}, but the method is {method.name}")


def _differences(stored: Method, method: Method) -> list[str]:
    theirs, ours = stored.model_dump(mode="json"), method.model_dump(mode="json")
    return [f"method.{key}={theirs[key]}, not {ours[key]}" for key in ours if theirs[key] != ours[key]]


def _left(loras: Mapping[str, LowRank], attachment: Attachment) -> list[str]:
    """Return what to say of the layers that a file does not have."""
    trained = sum(name.endswith(".lora_A.weight") for name in attachment.parameters())
    if trained == len(loras):
        return []
    return [f"has {len(loras)} of the {trained} layers that are trained; the others begin anew"]


def _digest(path: Path) -> str:
    """Return the sha256 of a file, or of the files of a directory in the order of their names."""
    digest = hashlib.sha256()
    for one in [path] if path.is_file() else sorted(child for child in path.iterdir() if child.is_file()):
        digest.update(one.read_bytes())
    return digest.hexdigest()
