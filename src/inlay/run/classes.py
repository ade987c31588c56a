"""The classes of a model from scratch: those that the run file names, or those that the pictures have."""

from __future__ import annotations

from dataclasses import replace

from inlay.base.scratch import Scratch
from inlay.data.dataset import Dataset
from inlay.errors import ConfigError
from inlay.run.config import JobConfig, PretrainConfig


def with_classes(config: JobConfig, dataset: Dataset) -> Scratch | None:
    """Return what a job initialises, with the classes of its pictures.

    Raises:
        ConfigError: pictures have a class that the run file does not name, or are of another number of classes.
    """
    scratch = config.scratch
    if scratch is None or scratch.conditioning != "class":
        return scratch
    assert isinstance(config, PretrainConfig)
    assert config.conditioning is not None
    stated = config.conditioning.classes
    found = tuple(sorted({example.caption for example in (*dataset.examples, *dataset.validation)}))
    shown = ", ".join(found[:12]) + (" ..." if len(found) > 12 else "")
    if isinstance(stated, tuple):
        strange = [name for name in found if name not in stated]
        if strange:
            raise ConfigError(
                f"conditioning.classes: {config.data.source} has pictures of the class {strange[0]!r}, which is not "
                f"among {', '.join(stated[:12])}"
            )
        return scratch
    if isinstance(stated, int) and stated != len(found):
        raise ConfigError(
            f"conditioning.classes={stated}: {config.data.source} has pictures of {len(found)} classes ({shown})"
        )
    return replace(scratch, classes=found)
