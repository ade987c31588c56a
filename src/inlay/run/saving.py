"""What a run leaves: a file for each method, or the tuned model as a pipeline directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inlay.base.contract import Base
from inlay.files import bytes_of, write_tensors, writing
from inlay.methods import Attachment, merge_all
from inlay.run.config import JobConfig
from inlay.run.directory import PIPELINE, method_file


def save_result(
    config: JobConfig, base: Base, attachments: Sequence[Attachment], record: dict[str, Any], directory: Path
) -> None:
    """Save what was trained, and write into the record which files that are and how large.

    Args:
        config: of the run.
        base: the model that was tuned.
        attachments: of the run's methods, trained.
        record: the run's, without its files.
        directory: the run directory.

    Raises:
        ArtifactError: a file cannot be written.
    """
    if any(method.result == "pipeline" for method in config.methods):
        # Full tuning changed the base's own weights. What stacks on it is folded in: one model comes out.
        merge_all(attachments)
        unfinished = directory / f".{PIPELINE}.unfinished"
        with writing(directory / PIPELINE):
            for earlier in (unfinished, directory / PIPELINE):  # of a process that was killed just here
                shutil.rmtree(earlier, ignore_errors=True)
            base.save_pipeline(unfinished)
            os.replace(unfinished, directory / PIPELINE)
        paths = [directory / PIPELINE]
    else:
        paths = []
        for index, attachment in enumerate(attachments):
            path = method_file(directory, index, attachment.method)
            described = {**attachment.metadata(), **_metadata(config, base, attachment, record)}
            write_tensors(path, attachment.state(), described)
            paths.append(path)
    record["files"] = [str(path.relative_to(directory)) for path in paths]
    record["costs"]["result_bytes"] = sum(map(bytes_of, paths))


def _metadata(config: JobConfig, base: Base, attachment: Attachment, record: dict[str, Any]) -> dict[str, str]:
    return {
        "inlay.version": record["versions"]["inlay"],
        "inlay.method": attachment.method.model_dump_json(),
        "inlay.base": config.base.model,
        "inlay.base_hash": str(base.file_hash),
        "inlay.config_hash": record["config_hash"],
        "inlay.trigger": config.data.prompt or "",
        "inlay.steps": str(record["costs"]["steps"]),
    }
