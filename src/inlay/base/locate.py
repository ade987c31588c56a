"""From the name in ``base.model`` to the folder or file that holds it."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inlay.base.settings import NONE, BaseSettings
from inlay.errors import ConfigError

EMBEDDED = Path(__file__).parent / "tabletop"
ARCHITECTURES = Path(__file__).parent / "architectures"
BUILT_IN = {path.name: path for path in sorted(ARCHITECTURES.iterdir()) if path.is_dir()}

CONFIGS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model",
    "vae": "vae/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
    "text_encoder_2": "text_encoder_2/model",
}
PLAIN = "inlay.json"
"""The file by which a directory is known for a model without text."""


@dataclass(frozen=True)
class Location:
    """Where a base lies."""

    kind: Literal["directory", "checkpoint", "architecture", "nothing"]
    """A diffusers directory with weights, one `.safetensors` file, configurations without weights, or no base."""
    path: Path


def locate(settings: BaseSettings, weights: bool = True) -> Location:
    """Find what ``settings.model`` names, fetching a hub id where the hub can be reached.

    Args:
        settings: the base section.
        weights: fetch weights too; without them only configurations are fetched.

    Raises:
        ConfigError: nothing of that name is found, or weights are asked for where there are none.
    """
    name = settings.model
    if name == NONE:
        return Location("nothing", Path())
    if name == "tabletop":
        return _directory(EMBEDDED, name)
    if name in BUILT_IN:
        if weights:
            raise ConfigError(
                f"base.model={name} is an architecture without weights, for `inlay plan`; to train, give a directory, "
                "a hub id or a .safetensors checkpoint"
            )
        return Location("architecture", BUILT_IN[name])
    path = Path(name).expanduser()
    if path.is_dir():
        return _directory(path, name)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ConfigError(f"base.model={name}: no such file")
        return Location("checkpoint", path)
    if path.is_file():
        raise ConfigError(
            f"base.model={name}: only .safetensors checkpoints are read (a pickled checkpoint can run code)"
        )
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _directory(_fetch(name, settings.revision, weights), name)
    known = ["tabletop", *BUILT_IN]
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigError(
        f"base.model={name}: no such directory or file{hint} (allowed: {', '.join(known)}, a directory in diffusers' "
        "layout, a hub id owner/name, a .safetensors checkpoint)"
    )


def _directory(path: Path, name: str) -> Location:
    if (path / PLAIN).is_file():
        return Location("directory", path)
    # A denoiser may be missing: pretraining brings its own. read_architecture looks for it where it is needed.
    needed = [relative for part, relative in CONFIGS.items() if part != "unet"]
    missing = [relative for relative in needed if not (path / relative).is_file()]
    if missing:
        raise ConfigError(
            f"base.model={name}: {path} is not a Stable Diffusion pipeline in diffusers' layout; "
            f"missing: {', '.join(missing)}"
        )
    return Location("directory", path)


def _fetch(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "tokenizer/*", "tokenizer_2/*"]
    if weights:
        patterns += [f"{stem}*.safetensors" for stem in WEIGHTS.values()]
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=["*.fp16.*", "*non_ema*", "safety_checker/*"],
        )
    except Exception as error:  # the hub client raises many kinds, network errors among them
        said = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise ConfigError(
            f"base.model={name}: no such directory here, and the hub did not give it ({said}); "
            "download it elsewhere and give its directory"
        ) from None
    return Path(folder)


def weight_files(directory: Path, part: str) -> list[Path]:
    """Return the safetensors files of one part of a diffusers directory, shards in order.

    Raises:
        ConfigError: there are none.
    """
    stem = directory / WEIGHTS[part]
    single = stem.with_name(stem.name + ".safetensors")
    half = stem.with_name(stem.name + ".fp16.safetensors")
    shards = sorted(stem.parent.glob(stem.name + "-*-of-*.safetensors"))
    for found in ([single], shards, [half]):
        if found and all(file.is_file() for file in found):
            return found
    pickled = stem.with_name(stem.name + ".bin")
    hint = " (a pickled .bin is not read: it can run code; convert it to safetensors)" if pickled.exists() else ""
    raise ConfigError(f"{stem.parent}: no weights {single.name} for the base's {part}{hint}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ConfigError: it is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a base in diffusers' layout has one") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable configuration: {error}") from None
