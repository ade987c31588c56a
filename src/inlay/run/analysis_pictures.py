"""Pictures of the analyses."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from inlay.files import write_atomically
from inlay.run.noise_difference import Measured
from inlay.run.pareto import OTHER_DRAW

COLOURS = ("#1f4e96", "#c2571a", "#2f8f57", "#8b4aa3", "#b8912a", "#3aa0b5", "#a33a4a", "#6b7280", "#5a7d1f", "#d16ba5")
OPTIMISED = {"ugd": ("#202020", "--"), "frank_wolfe": ("#202020", ":"), OTHER_DRAW: ("#8a8f98", "--")}
"""Colour and stroke of the weightings that are solutions rather than formulas."""
ROW_LETTERS = 20
"""Letters of a run's name that fit beside its row of maps."""
SPREAD_SHOWN = ("plain", "min_snr", "ugd", OTHER_DRAW)
"""Bands of all of them would hide each other; the record has the rest."""


def draw_conflict(record: dict[str, Any], path: Path) -> Path:
    """Draw the cosines between the bins' gradients, and every bin's change after training on one bin or on all.

    Args:
        record: of :func:`inlay.run.conflict.analyze_conflict`.
        path: where to write a PNG.
    """
    from matplotlib.figure import Figure

    edges = record["edges"]
    middles = (np.array(edges[:-1]) + np.array(edges[1:])) / 2
    figure = Figure(figsize=(12, 4.8), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    cosines = np.array(record["cosines"])
    most = max(0.05, float(np.abs(cosines).max()))  # noise can leave even a bin with itself far below 1
    image = left.imshow(
        cosines, vmin=-most, vmax=most, cmap="RdBu_r", origin="lower", extent=(0, edges[-1], 0, edges[-1])
    )
    figure.colorbar(image, ax=left, label="cosine between gradients")
    left.set_title(f"on different pictures, mean over pairs of {record['draws']} draws", fontsize=10)
    left.set_xlabel("timestep (0: clean)")
    left.set_ylabel("timestep")
    right.axhline(0, color="#8a8f98", linewidth=0.8)
    for number, (name, change) in enumerate(record["changes"].items()):
        colour = "#202020" if name == "uniform" else COLOURS[(number - 1) % len(COLOURS)]
        label = "all timesteps"
        if name != "uniform":
            first, end = edges[int(name)], edges[int(name) + 1]
            label = f"{first} to {end}"
            right.axvspan(first, end, color=colour, alpha=0.12)
        right.errorbar(
            middles,
            100 * np.array(change["relative_change"]),
            yerr=100 * np.array(change["standard_error"]),
            color=colour,
            linestyle="--" if name == "uniform" else "-",
            marker="o",
            markersize=3,
            linewidth=1.4,
            capsize=2,
            label=label,
        )
        for values in change["by_draw"]:
            right.plot(middles, 100 * np.array(values), ".", color=colour, markersize=3, alpha=0.35)
    right.set_xlabel("timestep (0: clean)")
    right.set_ylabel("change of the loss, %")
    right.set_title(
        f"after {record['steps']} steps on; mean and standard error of {record['draws']} draws", fontsize=10
    )
    right.grid(alpha=0.25)
    right.legend(frameon=False)
    return write_atomically(path, lambda place: figure.savefig(place, format="png"))


def draw_pareto(record: dict[str, Any], path: Path) -> Path:
    """Draw the objective of every weighting over lambda with its spread, and the optimal weights of every draw.

    Args:
        record: of :func:`inlay.run.pareto.analyze_pareto`.
        path: where to write a PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (name, values) in enumerate(record["objective"].items()):
        array = np.array(values)
        mean, spread = array.mean(1), array.std(1, ddof=1)
        colour, style = OPTIMISED.get(name, (COLOURS[number % len(COLOURS)], "-"))
        left.plot(record["lambdas"], mean, style, color=colour, linewidth=2 if name in OPTIMISED else 1.3, label=name)
        if name in SPREAD_SHOWN:
            low = np.maximum(mean - spread, mean / 100)  # the axis is logarithmic
            left.fill_between(record["lambdas"], low, mean + spread, color=colour, alpha=0.15, linewidth=0)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("lambda, in mean squared gradients")
    left.set_ylabel("objective, in mean squared gradients")
    left.grid(alpha=0.25)
    left.legend(frameon=False, fontsize=8, ncols=2)
    middles = (np.array(record["edges"][:-1]) + np.array(record["edges"][1:])) / 2
    row = len(record["lambdas"]) // 2
    for draw, weights in enumerate(record["weights"]["ugd"][row]):
        label = f"optimum of each of {record['draws']} draws" if draw == 0 else None
        right.plot(middles, weights, color="#1f4e96", alpha=0.5, linewidth=1, label=label)
    for name, colour in [("min_snr", "#c2571a"), ("plain", "#6b7280")]:
        right.plot(middles, record["weights"][name], color=colour, linewidth=2, label=name)
    right.set_xlabel("timestep (0: clean)")
    right.set_ylabel("share of the weight")
    right.set_title(f"lambda {record['lambdas'][row]:g}", fontsize=10)
    right.grid(alpha=0.25)
    right.legend(frameon=False)
    return write_atomically(path, lambda place: figure.savefig(place, format="png"))


def draw_noise_difference(measured: Measured, path: Path) -> Path:
    """Draw where the identifier acts: a row for the base and each run, a column a timestep.

    A column has one scale of brightness for all rows, so that rows can be compared; every map says its mean.

    Args:
        measured: of :func:`inlay.run.noise_difference.analyze_noise_difference`.
        path: where to write a PNG.
    """
    from matplotlib.figure import Figure

    timesteps, maps = measured.record["timesteps"], measured.maps
    columns = len(timesteps) + 1
    figure = Figure(figsize=(1.7 * columns + 0.3, 1.9 * len(maps) + 0.2), dpi=110, layout="constrained")
    axes = figure.subplots(len(maps), columns, squeeze=False)
    tops = np.max([rows.max((1, 2)) for rows in maps.values()], axis=0)
    for row, (name, shown) in enumerate(maps.items()):
        axes[row][0].imshow(measured.pictures[0])
        axes[row][0].set_ylabel(textwrap.fill(name, ROW_LETTERS), fontsize=10 if len(name) <= ROW_LETTERS else 8)
        for column, (timestep, values) in enumerate(zip(timesteps, shown, strict=True), 1):
            place = axes[row][column]
            # One grid point of the latents is as large as it is: no smoothing that the measure does not have.
            place.imshow(values, vmin=0, vmax=tops[column - 1] or 1.0, cmap="magma", interpolation="nearest")
            place.set_xlabel(f"mean {values.mean():.3f}", fontsize=8)
            if row == 0:
                place.set_title(f"timestep {timestep}", fontsize=9)
        for place in axes[row]:
            place.set_xticks([])
            place.set_yticks([])
    axes[0][0].set_title("picture", fontsize=9)
    return write_atomically(path, lambda place: figure.savefig(place, format="png"))
