"""A picture of how much of training goes to each timestep."""

from __future__ import annotations

from pathlib import Path

from inlay.files import write_atomically
from inlay.objective.effective import EffectiveWeights

LOGARITHMIC_FROM = 100.0
"""From this ratio of the greatest weight to the median on, a linear axis would show little but the greatest."""


def draw_weights(effective: EffectiveWeights, name: str, path: Path) -> Path:
    """Plot the effective weights over the timesteps beside the plain loss.

    Args:
        effective: the weights.
        name: of the weighting.
        path: where to write a PNG.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(1, color="#8a8f98", linewidth=1.2, linestyle="--", label="plain, uniform")
    axes.plot(effective.weights, color="#1f4e96", linewidth=1.8, label=name)
    median = sorted(effective.weights)[len(effective.weights) // 2]
    if max(effective.weights) > LOGARITHMIC_FROM * median:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("timestep (0: clean)")
    axes.set_ylabel("weight times how often it is drawn")
    axes.set_title(effective.sentence(), fontsize=9, wrap=True)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return write_atomically(path, lambda place: figure.savefig(place, format="png"))
