"""From pictures to figures: every metric by every extractor that it is defined on, or the reason why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inlay.data.cache import cache_directory
from inlay.data.tabletop.asked import asked
from inlay.errors import ConfigError, DataError
from inlay.files import read_arrays, write_arrays
from inlay.metrics import alignment, frechet, judge, kernels, manifold
from inlay.metrics.extractors import EXTRACTORS, Extractor, extract, extract_texts, load
from inlay.metrics.measure import Features, Measure
from inlay.metrics.reference import FORMAT as STATISTICS
from inlay.metrics.reference import Reference, load_reference, summarise
from inlay.run.evaluation.drawing import Shots, read_source
from inlay.run.evaluation.table import DEFAULT, METRICS

FEATURES = "inlay-reference-features-1"
"""What the header of a file of saved features calls itself."""


@dataclass
class Figures:
    """What was measured."""

    measures: dict[str, Measure] = field(default_factory=dict)
    """By flat name: the metric's, with ``@extractor`` after it for further extractors than the first."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a figure could not be measured."""

    def values(self) -> dict[str, float | None]:
        """Return the flat numbers; null for what is missing."""
        return {name: one.value for name, one in self.measures.items()} | dict.fromkeys(self.missing)


class Lens:
    """The extractors of an evaluation, each loaded once; features are kept by content."""

    def __init__(self, names: Sequence[str], device: str = "cpu"):
        """Load them.

        Args:
            names: see `inlay.metrics.extractors.load`.
            device: of the computation.

        Raises:
            ConfigError: there is no extractor of a name.
            ArtifactError: its weights are missing.
        """
        self.kinds = {name: name.partition(":")[0] for name in names}
        check_extractors(names)
        self.extractors = {name: load(name, cache_directory() / "weights", device) for name in names}

    def features(self, name: str, shots: Shots) -> Features:
        """Return the features of pictures, grouped by prompt and named by pairing."""
        clusters = shots.prompts
        return extract(self.extractors[name], shots.pictures, _kept(), clusters, shots.pairing)

    def texts(self, name: str, prompts: Sequence[str]) -> Features:
        """Return the features of prompts."""
        return extract_texts(self.extractors[name], prompts)

    def first(self, kinds: Sequence[str] = (), texts: bool = False) -> str | None:
        """Return the first extractor of some kinds, or with a text tower; None where there is none."""
        for name, kind in self.kinds.items():
            if (not kinds or kind in kinds) and not (texts and self.extractors[name].texts is None):
                return name
        return None


def check_extractors(names: Sequence[str]) -> None:
    """Refuse what is no extractor's name, before anything is loaded.

    Raises:
        ConfigError: with the names that are allowed.
    """
    for name in names:
        if name.partition(":")[0] not in EXTRACTORS:
            raise ConfigError(
                f"features: there is no extractor {name!r}; allowed: {', '.join(EXTRACTORS)}, after a colon a local "
                "path or a hub id, as in clip:openai/clip-vit-large-patch14"
            )


def _kept() -> Path:
    return cache_directory() / "features"


class References:
    """What generated pictures are compared with: pictures, or features that were saved."""

    def __init__(self, name: str, pictures: Sequence[NDArray[np.uint8]] | None, saved: Path | None = None):
        """Hold pictures, or the path of a file that holds features or statistics."""
        self.name = name
        self.pictures = pictures
        self.saved = saved
        self._features: dict[str, Features | Reference] = {}

    @classmethod
    def read(cls, source: str, count: int, side: int, key: str = "evaluate.reference") -> References:
        """Read a folder, another source, or a file that :func:`save_features` or `save_reference` wrote.

        Raises:
            DataError: there is nothing to compare with.
            ArtifactError: the file holds something else.
        """
        path = Path(source).expanduser()
        if path.suffix == ".safetensors" and path.is_file():
            about = read_arrays(path)[1]
            if about.get("format") not in (FEATURES, STATISTICS):
                raise DataError(f"{key}: {source} holds neither reference features nor statistics of inlay")
            return cls(source, None, path)
        return cls(source, read_source(source, count, side, key)[0])

    def of(self, extractor: Extractor) -> Features | Reference:
        """Return the features, or where only they were saved the statistics.

        Raises:
            DataError: what was saved is of another extractor.
        """
        found = self._features.get(extractor.fingerprint)
        if found is None:
            if self.pictures is not None:
                found = extract(extractor, self.pictures, _kept())
            else:
                assert self.saved is not None
                found = load_features(self.saved)
                if found.fingerprint != extractor.fingerprint:
                    raise DataError(
                        f"{self.saved} holds features of {found.extractor} ({found.fingerprint[:12]}), not of "
                        f"{extractor.name} ({extractor.fingerprint[:12]}): save the reference with that extractor"
                    )
            self._features[extractor.fingerprint] = found
        return found


def save_features(features: Features, path: Path) -> Path:
    """Write reference features to a safetensors file: whole or not at all.

    Raises:
        ArtifactError: the place cannot be written.
    """
    about = {"format": FEATURES, "extractor": features.extractor, "fingerprint": features.fingerprint}
    return write_arrays(path, {"features": features.values}, about)


def load_features(path: Path) -> Features | Reference:
    """Read what `save_features`, or `inlay.metrics.reference.save_reference`, wrote."""
    arrays, about = read_arrays(path)
    if about.get("format") == STATISTICS:
        return load_reference(path)
    return Features(arrays["features"], about["extractor"], about["fingerprint"])


def choose(names: Sequence[str] | None, kinds: Sequence[str], reference: bool, repeats: bool, world: bool) -> list[str]:
    """Return the metrics to measure: the stated ones, or of the usual ones those that can be.

    Args:
        names: the stated ones.
        kinds: of the extractors.
        reference: whether there are reference pictures.
        repeats: whether a prompt has several pictures.
        world: whether prompts may ask for attributes of the rendered world.

    Raises:
        ConfigError: no extractor fits a stated metric.
    """

    def fits(name: str) -> bool:
        return not METRICS[name].kinds or any(kind in METRICS[name].kinds for kind in kinds)

    if names is not None:
        for name in names:
            if name not in METRICS:
                raise ConfigError(f"there is no metric {name!r}; allowed: {', '.join(METRICS)}")
            if not fits(name):
                raise ConfigError(
                    f"metric {name} is defined on {' and '.join(METRICS[name].kinds)}; the features are "
                    f"{', '.join(kinds)}; add one of the former to features"
                )
        return list(names)
    there = {"reference": reference, "texts": True, "repeats": repeats, "asked": world}
    return [name for name in DEFAULT if fits(name) and all(there[need] for need in METRICS[name].needs)]


def measure(names: Sequence[str], lens: Lens, shots: Shots, references: References | None) -> Figures:
    """Return the figures of generated pictures.

    A figure that cannot be measured is missing with its reason; the others are measured all the same.

    Args:
        names: of `METRICS`, from :func:`choose`.
        lens: the extractors.
        shots: the pictures.
        references: what to compare with.
    """
    figures = Figures()
    for name in names:
        metric = METRICS[name]
        fitting = [one for one, kind in lens.kinds.items() if not metric.kinds or kind in metric.kinds]
        for number, which in enumerate(fitting):
            flat = name if number == 0 else f"{name}@{lens.extractors[which].name}"
            if flat in figures.measures:
                continue
            try:
                if "reference" in metric.needs and references is None:
                    raise DataError("there is no reference to compare with; give one")
                found = _COMPUTE[name](lens, which, shots, references)
            except DataError as error:
                figures.missing[flat] = str(error)
                continue
            suffix = flat.removeprefix(name)
            # Precision and recall, density and coverage are found together; one that nobody asked for is left out.
            kept = {key: value for key, value in found.items() if key not in METRICS or key in names}
            figures.measures |= {f"{key}{suffix}": value for key, value in kept.items()}
    return figures


Compute = Callable[[Lens, str, Shots, "References | None"], Mapping[str, Measure]]


def _features(lens: Lens, which: str, references: References | None) -> Features:
    assert references is not None
    found = references.of(lens.extractors[which])
    if isinstance(found, Reference):
        raise DataError(
            f"{references.name} holds only mean and covariance, enough for a Frechet distance alone; save the "
            "reference anew with `inlay evaluate ... --save-reference FILE`, or give its pictures"
        )
    return found


def _statistics(lens: Lens, which: str, references: References | None) -> Reference:
    assert references is not None
    found = references.of(lens.extractors[which])
    return found if isinstance(found, Reference) else summarise(found)


def _against(function: Callable[[Features, Features], Measure], name: str) -> Compute:
    return lambda lens, which, shots, references: {
        name: function(lens.features(which, shots), _features(lens, which, references))
    }


def _both(function: Callable[[Features, Features], tuple[Measure, Measure]], names: tuple[str, str]) -> Compute:
    return lambda lens, which, shots, references: dict(
        zip(names, function(lens.features(which, shots), _features(lens, which, references)), strict=True)
    )


def _frechet(function: Callable[[Features, Reference], Measure], name: str) -> Compute:
    return lambda lens, which, shots, references: {
        name: function(lens.features(which, shots), _statistics(lens, which, references))
    }


def _clip_text(lens: Lens, which: str, shots: Shots, references: References | None) -> Mapping[str, Measure]:
    if shots.prompts is None:
        raise DataError("the pictures' prompts are not known; give the folder captions, as for training")
    return {"clip_t": alignment.clip_text(lens.features(which, shots), lens.texts(which, shots.prompts))}


def _accuracy(lens: Lens, which: str, shots: Shots, references: References | None) -> Mapping[str, Measure]:
    if shots.prompts is None:
        raise DataError("the pictures' prompts are not known; give the folder captions, as for training")
    wanted = [asked(prompt) for prompt in shots.prompts]
    return judge.attribute_accuracy(shots.pictures, wanted, shots.prompts, shots.pairing)


_COMPUTE: dict[str, Compute] = {
    "kid": _against(kernels.kid, "kid"),
    "cmmd": _against(kernels.cmmd, "cmmd"),
    "frechet": _frechet(frechet.frechet, "frechet"),
    "frechet_infinity": _frechet(frechet.infinity, "frechet_infinity"),
    "precision": _both(manifold.precision_recall, ("precision", "recall")),
    "recall": _both(manifold.precision_recall, ("precision", "recall")),
    "density": _both(manifold.density_coverage, ("density", "coverage")),
    "coverage": _both(manifold.density_coverage, ("density", "coverage")),
    "clip_t": _clip_text,
    "clip_i": _against(alignment.image_similarity, "clip_i"),
    "dino_i": _against(alignment.image_similarity, "dino_i"),
    "diversity": lambda lens, which, shots, references: {"diversity": alignment.diversity(lens.features(which, shots))},
    "accuracy": _accuracy,
}
