"""What `inlay evaluate` is pointed at: a run, a base with adapters, or a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inlay.base.contract import Base
from inlay.base.families import load_base
from inlay.base.locate import CONFIGS
from inlay.base.settings import BaseSettings
from inlay.data.dataset import load_dataset
from inlay.data.decode import SUFFIXES
from inlay.errors import ConfigError, DataError
from inlay.run.adapters import load_adapted
from inlay.run.config import JobConfig, PretrainConfig
from inlay.run.directory import RUN_FILE, load_run, read_config
from inlay.run.evaluation.drawing import shown


@dataclass(frozen=True)
class Target:
    """One thing to measure."""

    kind: Literal["run", "base", "folder"]
    name: str
    adapters: tuple[Path, ...] = ()
    strengths: tuple[float, ...] = ()
    config: JobConfig | None = None
    """Of a run."""

    @classmethod
    def of(cls, name: str, adapters: Sequence[Path] = (), strengths: Sequence[float] = ()) -> Target:
        """Tell what a name on the command line means; nothing is loaded.

        Raises:
            ConfigError: adapters are given for a folder of pictures, or the directory is none of the three.
        """
        path = Path(name).expanduser()
        if (path / RUN_FILE).is_file():
            return cls("run", name, tuple(adapters), tuple(strengths), read_config(path))
        if not path.is_dir() or (path / CONFIGS["vae"]).is_file():
            return cls("base", name, tuple(adapters), tuple(strengths))
        if not any(file.suffix.lower() in SUFFIXES for file in path.rglob("*")):
            raise ConfigError(
                f"{name}: neither a run directory (no {RUN_FILE}), nor a base (no {CONFIGS['vae']}), nor a folder of "
                "pictures"
            )
        if adapters:
            raise ConfigError(f"--adapter: {name} is a folder of pictures; adapters are for a base or a run")
        return cls("folder", name)

    @property
    def base_name(self) -> str:
        """The base as a run file names it; empty for a folder."""
        if self.kind == "folder":
            return ""
        return self.config.base.model if self.config is not None else self.name

    @property
    def tuned(self) -> bool:
        """Whether there is a base to hold it against."""
        if isinstance(self.config, PretrainConfig):
            return bool(self.adapters)
        return self.kind == "run" or bool(self.adapters)

    def load(self, device: str) -> Base:
        """Load the model with what was learned."""
        if self.adapters:
            return load_adapted(self.name, self.adapters, self.strengths, device)
        if self.kind == "run":
            return load_run(Path(self.name))[0].to(device)
        return load_base(BaseSettings(model=self.name)).to(device)

    def load_base(self, device: str) -> Base:
        """Load the model that was tuned, as it was before."""
        if isinstance(self.config, PretrainConfig):
            return load_run(Path(self.name))[0].to(device)
        settings = self.config.base if self.config is not None else BaseSettings(model=self.name)
        return load_base(settings).to(device)

    def training(self, side: int, multiple: int, count: int) -> tuple[tuple[NDArray[np.uint8], ...], list[str]]:
        """Return the first pictures that a run was trained on, as it saw them, and the captions.

        Raises:
            DataError: they are not here any more.
        """
        if self.config is None:
            raise DataError(f"{self.name} is no run directory: what it was trained on is not known; give --reference")
        dataset = load_dataset(self.config.data, side, self.config.seed, multiple)
        captions = list(dict.fromkeys(example.caption for example in dataset.examples))
        return shown(dataset.examples[:count], dataset.resolution), captions

    def about(self) -> dict[str, object]:
        """Return how a record calls it."""
        adapters = [str(path) for path in self.adapters]
        return {"kind": self.kind, "name": self.name, "adapters": adapters, "strengths": list(self.strengths)}
