"""The scripts of recipes/tabletop import each other by name, as `python recipes/tabletop/clip.py` does."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "recipes" / "tabletop"


@pytest.fixture(autouse=True)
def recipe_folder(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)
