"""Features with their origin, figures with their origin, and which figures may be compared."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inlay.errors import DataError
from inlay.metrics.intervals import Interval, Jackknife, group, student_quantile

if TYPE_CHECKING:
    from inlay.metrics.reference import Reference


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a set of pictures, and what made them."""

    values: NDArray
    """[N, D], one row a picture, finite."""
    extractor: str
    """Name, e.g. ``"inlay-tabletop-clip"``."""
    fingerprint: str
    """Of the extractor: weights and resizing. Features of unequal fingerprints are not compared."""
    clusters: tuple[Hashable, ...] | None = None
    """What each picture shares with others, usually its prompt; None where every picture stands alone."""
    pairing: str = ""
    """Names the prompts and the noise that the pictures were drawn with; sets of equal names are compared in pairs."""

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) < 1:
            raise DataError(f"Features must be [N, D] with N >= 1; given: shape {self.values.shape}.")
        if not np.isfinite(self.values).all():
            raise DataError(f"Features of {self.extractor} must be finite; given: some that are NaN or infinite.")
        group(len(self.values), self.clusters)  # refuses labels of another number

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The group of each picture, for `intervals.jackknife`."""
        return group(len(self.values), self.clusters)

    @cached_property
    def prompts(self) -> NDArray[np.int64]:
        """The number of each picture's cluster, [N], from 0 in the order of first appearance; 0 without clusters."""
        labels = self.clusters or (0,) * len(self.values)
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        return np.array([numbers[label] for label in labels], dtype=np.int64)

    @property
    def independent(self) -> int:
        """Clusters, or pictures where there are none or one."""
        clusters = len(set(self.clusters or ()))
        return clusters if clusters > 1 else len(self.values)

    @cached_property
    def double(self) -> NDArray[np.float64]:
        """The values in float64: float32 sums put distances off by percents."""
        return self.values.astype(np.float64)

    @cached_property
    def unit(self) -> NDArray[np.float64]:
        """The values in float64 with rows of length 1.

        Raises:
            DataError: a row is zero and has no direction.
        """
        lengths = np.linalg.norm(self.double, axis=1, keepdims=True)
        if not (lengths > 0).all():
            raise DataError(f"Features of {self.extractor} have no direction: row {int(lengths.argmin())} is zero.")
        return self.double / lengths

    @cached_property
    def content(self) -> str:
        """A hash of the values: two figures compare only where their references have the same."""
        return hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()[:16]


def same_extractor(first: Any, second: Any) -> None:
    """Refuse to set features, statistics or figures of unequal extractors against each other.

    Raises:
        DataError: the extractors' fingerprints differ.
    """
    if first.fingerprint != second.fingerprint:
        names = [f"{item.extractor} ({item.fingerprint[:12]})" for item in (first, second)]
        raise DataError(
            f"Features of {names[0]} and of {names[1]} cannot be compared: distances in one space say nothing about "
            "another. Extract both sets with the same extractor."
        )


@dataclass(frozen=True)
class Measure:
    """One figure, with all that is needed to know what it may be compared with."""

    metric: str
    value: float
    interval: Interval | None
    """None where none can be given; `note` says why."""
    pictures: int
    """Generated pictures behind the figure."""
    references: int
    """Reference pictures; 0 where the metric has none."""
    extractor: str
    fingerprint: str
    reference: str = ""
    """A hash of the reference set; empty where the metric has none."""
    pairing: str = ""
    """See `Features.pairing`."""
    note: str = ""
    """A plain sentence on what the figure cannot bear; empty where there is nothing to say."""
    jackknife: Jackknife | None = field(default=None, repr=False)
    """The values with groups left out: what a paired difference needs."""

    def record(self) -> dict[str, Any]:
        """Return the figure as plain numbers, texts, lists and dicts, for JSON."""
        return asdict(self)


def measured(
    metric: str,
    found: Jackknife,
    interval: Interval | None,
    generated: Features,
    reference: Features | Reference | None = None,
    note: str = "",
) -> Measure:
    """Return a figure of generated pictures, with where they and the reference set come from.

    Args:
        metric: its name.
        found: its value, and those with groups left out.
        interval: around the value.
        generated: features of the pictures.
        reference: what they are set against, if anything.
        note: see `Measure.note`.
    """
    return Measure(
        metric,
        found.value,
        interval,
        len(generated),
        0 if reference is None else len(reference),
        generated.extractor,
        generated.fingerprint,
        "" if reference is None else reference.content,
        generated.pairing,
        note,
        found,
    )


def restore(record: dict[str, Any]) -> Measure:
    """Return the figure whose `Measure.record` this is."""
    interval, found = record["interval"], record["jackknife"]
    if found is not None:
        found = Jackknife(found["value"], tuple(found["left_out"]), tuple(found["sizes"]))
    return Measure(**{**record, "interval": interval and Interval(**interval), "jackknife": found})


@dataclass(frozen=True)
class Difference:
    """How much larger a figure is in one set of pictures than in another."""

    metric: str
    value: float
    """First minus second."""
    interval: Interval | None
    paired: bool
    """Whether the sets share prompts and noise, so that what both have in common cancels."""

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and not self.interval.low <= 0 <= self.interval.high


def difference(first: Measure, second: Measure, level: float = 0.95) -> Difference:
    """Return first minus second, in pairs where both were drawn with the same prompts and noise.

    In pairs, each group is left out of both sets at once; else the variances add, with the degrees of freedom of
    Welch (1947) and Satterthwaite (1946).

    Raises:
        DataError: the figures are of different metrics, extractors, references or numbers of pictures.
    """
    if first.metric != second.metric:
        raise DataError(f"{first.metric} and {second.metric} are different metrics and cannot be compared.")
    same_extractor(first, second)
    if first.pictures != second.pictures:
        raise DataError(
            f"{first.metric} of {first.pictures} and of {second.pictures} pictures cannot be compared: many metrics "
            "change with the number alone. Draw the same number for both."
        )
    if (first.reference, first.references) != (second.reference, second.references):
        raise DataError(
            f"{first.metric} against different reference sets ({first.references} and {second.references} pictures) "
            "cannot be compared. Measure both against one set."
        )
    one, two = first.jackknife, second.jackknife
    value = first.value - second.value
    paired = bool(first.pairing) and first.pairing == second.pairing
    if one is None or two is None:
        return Difference(first.metric, value, None, paired)
    if paired and one.sizes == two.sizes:
        left_out = tuple(a - b for a, b in zip(one.left_out, two.left_out, strict=True))
        both = Jackknife(one.value - two.value, left_out, one.sizes)
        return Difference(first.metric, value, both.interval(value, level), True)
    freedoms = [len(found.sizes) - 1 for found in (one, two)]
    variance = one.variance + two.variance
    if min(freedoms) < 2 or variance <= 0:
        return Difference(first.metric, value, None, False)
    freedom = variance**2 / (one.variance**2 / freedoms[0] + two.variance**2 / freedoms[1])
    half = student_quantile(0.5 + level / 2, freedom) * math.sqrt(variance)
    return Difference(first.metric, value, Interval(value - half, value + half, level), False)
