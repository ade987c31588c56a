"""Figures in records: flat numbers by name, and beside each what is needed to judge and compare it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inlay.metrics.intervals import Interval, Jackknife, of_mean
from inlay.metrics.measure import Measure
from inlay.run.evaluation.table import better


def details(name: str, measure: Measure) -> dict[str, Any]:
    """Return what stands beside a figure in a record: JSON values, NaN as null.

    Keys: ``value``; ``interval`` ([low, high] or null) and its ``level``; ``n`` generated pictures and ``references``;
    ``extractor``, its ``fingerprint``, the ``reference`` set's hash, ``pairing``; ``label``, as publications call the
    figure; ``better``; ``note``; ``jackknife``, with which two runs are compared in pairs (:func:`restored`).
    """
    interval, found = measure.interval, measure.jackknife
    return {
        "value": finite(measure.value),
        "interval": None if interval is None else [finite(interval.low), finite(interval.high)],
        "level": None if interval is None else interval.level,
        "n": measure.pictures,
        "references": measure.references,
        "extractor": measure.extractor,
        "fingerprint": measure.fingerprint,
        "reference": measure.reference,
        "pairing": measure.pairing,
        "label": measure.metric,
        "better": better(name),
        "note": measure.note,
        "jackknife": None
        if found is None
        else {"value": found.value, "left_out": list(found.left_out), "sizes": list(found.sizes)},
    }


def restored(about: Mapping[str, Any]) -> Measure:
    """Return the figure whose :func:`details` these are, for `inlay.metrics.measure.difference`."""
    found, interval = about["jackknife"], about["interval"]
    return Measure(
        about["label"],
        math.nan if about["value"] is None else about["value"],
        None if interval is None else Interval(interval[0], interval[1], about["level"]),
        about["n"],
        about["references"],
        about["extractor"],
        about["fingerprint"],
        about["reference"],
        about["pairing"],
        about["note"],
        None if found is None else Jackknife(found["value"], tuple(found["left_out"]), tuple(found["sizes"])),
    )


def finite(value: float) -> float | None:
    """Return a number as JSON can hold it."""
    return float(value) if math.isfinite(value) else None


def loss_details(table: NDArray[np.float64], timesteps: list[int], label: str, pairing: str) -> dict[str, Any]:
    """Return what stands beside a loss on held-out pictures, in all and by timestep.

    Args:
        table: losses [pictures, timesteps].
        timesteps: at which they were measured.
        label: what the figure is called.
        pairing: names pictures and noise: losses of equal ones are compared in pairs.
    """

    def over(values: NDArray[np.float64]) -> Measure:
        found = of_mean(values, np.arange(len(values)) % 20)
        note = "" if found.interval() else "No interval: fewer than three held-out pictures."
        return Measure(label, found.value, found.interval(), len(values), 0, "", "", "", pairing, note, found)

    bins = []
    for place, timestep in enumerate(timesteps):
        one = over(table[:, place])
        interval = None if one.interval is None else [one.interval.low, one.interval.high]
        bins.append({"timestep": timestep, "value": finite(one.value), "interval": interval})
    return {**details("validation_loss", over(table.mean(1))), "by_timestep": bins}
