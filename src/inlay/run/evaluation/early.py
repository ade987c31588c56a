"""What can be found wrong with a section ``evaluate`` before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from inlay.base.locate import EMBEDDED
from inlay.errors import ConfigError
from inlay.metrics import frechet
from inlay.metrics.extractors import WIDTHS
from inlay.run.config import JobConfig
from inlay.run.evaluation.measuring import check_extractors, choose
from inlay.run.evaluation.prompts import questions
from inlay.run.evaluation.settings import EvaluateSettings


def extractors(settings: EvaluateSettings, base: str) -> tuple[str, ...]:
    """Return the extractors of a section; `tabletop` by default where the base is the embedded one.

    Raises:
        ConfigError: none is given, and the base's pictures are not of the rendered world.
    """
    if settings.features is not None:
        return settings.features
    if base == "tabletop" or Path(base).expanduser() == EMBEDDED:
        return ("tabletop",)
    raise ConfigError(
        f"evaluate.features: say which network looks at the pictures of {base}; for photographs "
        "[clip:openai/clip-vit-large-patch14, dino:facebook/dino-vits16], or folders that hold them"
    )


def check_evaluation(config: JobConfig) -> None:
    """Hold a job's section `evaluate` against its other settings.

    Raises:
        ConfigError: it asks for what cannot be.
    """
    settings = config.evaluate
    if settings is None:
        return
    names = extractors(settings, config.base.model)
    check_extractors(names)
    kinds = [name.partition(":")[0] for name in names]
    metrics = choose(settings.metrics, kinds, True, settings.pictures > 1, "tabletop" in kinds)
    questions(settings, config, ("a caption",))
    keep = settings.keep_best
    if keep == "validation_loss" and not config.data.validation:
        raise ConfigError("evaluate.keep_best=validation_loss needs held-out pictures: set data.validation")
    if keep is not None and keep != "validation_loss" and keep not in metrics:
        raise ConfigError(
            f"evaluate.keep_best={keep} is not measured here; what is: {', '.join(metrics)}"
            + ("; it needs several pictures a prompt" if keep == "diversity" else "")
        )


def few_pictures(settings: EvaluateSettings, names: Sequence[str], prompts: int) -> Iterator[str]:
    """Say which stated figures will be missing, because too few pictures are drawn for them.

    Args:
        settings: the section.
        names: of the extractors.
        prompts: how many are asked.
    """
    if "frechet_infinity" not in (settings.metrics or ()):
        return
    pictures = settings.pictures * prompts
    for name in names:
        needed = frechet.enough(WIDTHS.get(name.partition(":")[0], 0))
        if pictures < needed:
            yield (
                f"evaluate.metrics: frechet_infinity will be missing: {pictures} pictures are drawn, and with the "
                f"features of {name} it needs {needed}; set evaluate.pictures, or take kid, which few pictures do not "
                "bias"
            )
