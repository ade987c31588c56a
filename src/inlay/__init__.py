"""inlay trains, tunes and compares diffusion models efficiently.

    import inlay

    run = inlay.tune(base="tabletop", data={"source": "photos", "prompt": "a photo of sks dog"},
                     method="lora", train={"steps": 400}, output="runs/dog")
    pictures = inlay.sample("runs/dog", ["a photo of sks dog in the snow"])

The names are those of the run file. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inlay.run.average import Averaged
    from inlay.run.draw import Drawn
    from inlay.run.job import Result
    from inlay.run.plan import Plan

__version__ = "0.1.0"
__all__ = ["average", "evaluate", "plan", "pretrain", "sample", "tune"]


def plan(**sections: Any) -> Plan:
    """Return what a run with these sections would train, need and cost; loads no weights.

    Raises:
        InlayError: the sections are wrong, see :mod:`inlay.errors`.
    """
    from inlay.run.config import PretrainConfig, RunConfig
    from inlay.run.load import validate
    from inlay.run.plan import make_plan

    return make_plan(validate(PretrainConfig if "denoiser" in sections else RunConfig, _plain(sections)))


def tune(**sections: Any) -> Result:
    """Tune a base; the arguments are a run file's sections, `output` among them.

    Raises:
        InlayError: the sections are wrong, see :mod:`inlay.errors`.
    """
    from inlay.run.config import RunConfig

    return _execute(RunConfig, sections)


def pretrain(**sections: Any) -> Result:
    """Train a denoiser from scratch; the arguments are a run file's sections, `denoiser` and `output` among them.

    Raises:
        InlayError: the sections are wrong, see :mod:`inlay.errors`.
    """
    from inlay.run.config import PretrainConfig

    return _execute(PretrainConfig, sections)


def sample(target: str | Path, prompts: str | Sequence[str], **options: Any) -> list[Drawn]:
    """Draw pictures with a run directory or a base; the options are those of :func:`inlay.run.draw.draw`.

    Raises:
        InlayError: the target is not found, or its files are broken.
    """
    from inlay.run.draw import draw, load_target

    return draw(load_target(target), prompts, **options)


def average(run: str | Path, sigma_rel: float, out: str | Path | None = None) -> Averaged:
    """Average a run's weights over another length; the run was trained with ``train.ema: {name: power}``.

    Raises:
        InlayError: there is no such run, or the place is taken; see :func:`inlay.run.average.average`.
    """
    from inlay.run.average import average

    return average(run, sigma_rel, out)


def evaluate(
    target: str | Path,
    against: str | Path | None = None,
    adapters: Sequence[str | Path] = (),
    into: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a run directory, a base with adapter files, or a folder of pictures, alone or against another.

    Args:
        target: what to measure.
        against: another one, drawn with the same prompts and noise.
        adapters: files for ``target``.
        into: where `evaluation.json` and `evaluation.png` go; by default as `inlay evaluate` does.
        settings: those of a run file's section `evaluate`, for instance ``reference="photos/rex"``.

    Returns:
        What `evaluation.json` holds.

    Raises:
        InlayError: the targets cannot be read, measured or compared.
    """
    from pathlib import Path

    from inlay.run.evaluation.evaluate import evaluate as measure
    from inlay.run.evaluation.target import Target
    from inlay.run.reporter import Silent

    first = Target.of(str(target), [Path(adapter) for adapter in adapters])
    second = Target.of(str(against)) if against is not None else None
    return measure(first, second, _plain(settings), Silent(), Path(into) if into is not None else None)[0]


def _execute(kind: Any, sections: dict[str, Any]) -> Result:
    from pathlib import Path

    from inlay.errors import ConfigError
    from inlay.run.job import execute
    from inlay.run.load import validate

    config = validate(kind, _plain(sections))
    if config.output is None:
        raise ConfigError("output: give the run directory, for instance output='runs/first'")
    return execute(config, Path(config.output))


def _plain(value: Any) -> Any:
    """Write paths as the text that a run file would hold; Python code has them more often than not."""
    import os

    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
