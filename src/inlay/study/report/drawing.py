"""How pictures of reports look, and how they are written: PNG files, and SVG that takes the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, LINE, PAPER = "#1f2328", "#636b74", "#e4e1dc", "#ffffff"
COLOURS = ("#1c64a8", "#c9541c", "#1d8560", "#8d4a9c", "#a67c00", "#2f93c4", "#a83254", "#5d6673")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "path",  # letters of another font would not fit where matplotlib has put them
    "svg.hashsalt": "inlay",  # the same picture is the same file
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of reports inside a ``with`` block."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def to_png(figure: Figure) -> bytes:
    """Return a PNG on white."""
    target = io.BytesIO()
    with style():
        figure.savefig(target, format="png", dpi=160, facecolor=PAPER, metadata={"Software": None})
    return target.getvalue()


def to_svg(figure: Figure, name: str) -> str:
    """Return an SVG element whose ink follows the page, light or dark.

    Args:
        figure: drawn in `style`.
        name: prefix of its identifiers, so that several fit into one page.
    """
    target = io.StringIO()
    with style():  # decides the identifiers, too
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\bid=")|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    lines = [(colour, f"--r{place}") for place, colour in enumerate(COLOURS)]
    for colour, variable in ((INK, "--ink"), (SOFT, "--soft"), (LINE, "--line"), *lines):
        text = text.replace(colour, f"var({variable})")
    return re.sub(r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', r'<svg \1class="chart"', text, count=1)
