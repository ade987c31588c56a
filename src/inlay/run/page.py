"""What the pages of inlay share: each is one file that needs nothing else, and they look alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TEMPLATE, STYLE = "page.html.j2", "page.css"


def render_page(place: Path, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Return a page.

    Args:
        place: the folder with its template, and with the rules of style that it has beside the shared ones.
        filters: of the template.
        values: of the template, which is given `style` beside them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(place), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters or {}
    style = "".join((folder / STYLE).read_text(encoding="utf-8") for folder in (Path(__file__).parent, place))
    return environment.get_template(TEMPLATE).render(style=style, **values)
