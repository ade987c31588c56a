"""Small folders of real picture files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inlay.data.settings import DataSettings
from inlay.errors import DataError


def draw(width=24, height=16, shade=0):
    """Return a picture whose pixels are all different from those of another shade."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows * 5, columns * 5, np.full_like(rows, shade)], -1).astype(np.uint8))


@pytest.fixture(name="draw")
def _draw():
    """The function that draws the fixtures' pictures."""
    return draw


@pytest.fixture
def folder(tmp_path):
    """A folder with a.png, b.png and sub/c.png, without captions."""
    place = tmp_path / "pictures"
    (place / "sub").mkdir(parents=True)
    for shade, name in enumerate(["a.png", "b.png", "sub/c.png"]):
        draw(shade=shade * 10).save(place / name)
    return place


@pytest.fixture
def refusal():
    """Returns the message with which a folder is refused."""
    from inlay.data.sources import load_examples

    def load(source: Path | str, **settings) -> str:
        with pytest.raises(DataError) as caught:
            load_examples(DataSettings(source=str(source), **settings), 64)
        return str(caught.value)

    return load
