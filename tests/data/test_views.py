from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inlay.data.sources import Example
from inlay.data.views import View, center_view, covering_size, pixels, placed_view

DOG = Path(__file__).parents[2] / ".." / "shared" / "data" / "dreambooth" / "dog"


def example(picture):
    return Example("x.png", "x", "0" * 64, *picture.size, reader=lambda: picture)


def noise(width, height):
    # Smooth enough to be like a picture, sharp enough that bicubic overshoots.
    values = np.random.default_rng(0).integers(0, 2, (height, width, 3)) * 255
    return Image.fromarray(values.astype(np.uint8))


def float_bicubic(picture, height, width):
    """Pillow's bicubic in floating point, channel by channel: [3, height, width] in 0..255, overshoot included."""
    channels = [channel.convert("F").resize((width, height), Image.Resampling.BICUBIC) for channel in picture.split()]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    size=st.tuples(st.integers(8, 1024), st.integers(8, 1024)),
)
def test_the_scaled_picture_just_covers_the_view_and_keeps_its_aspect(width, height, size):
    scaled = covering_size(width, height, size)
    assert scaled[0] >= size[0]
    assert scaled[1] >= size[1]
    assert scaled[0] == size[0] or scaled[1] == size[1]
    scale = max(size[0] / height, size[1] / width)
    assert abs(scaled[0] - scale * height) <= 0.5 + 1e-6
    assert abs(scaled[1] - scale * width) <= 0.5 + 1e-6


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    down=st.floats(0, 1, exclude_max=False),
    right=st.floats(0, 1, exclude_max=False),
)
def test_a_crop_lies_inside_the_scaled_picture(width, height, down, right):
    view = placed_view(example(Image.new("RGB", (width, height))), (64, 48), down, right, False)
    scaled = covering_size(width, height, (64, 48))
    assert 0 <= view.top <= scaled[0] - 64
    assert 0 <= view.left <= scaled[1] - 48


def test_the_centre_is_the_centre():
    assert center_view(example(Image.new("RGB", (100, 64))), (64, 64)) == View(64, 64, 0, 18, False)
    assert center_view(example(Image.new("RGB", (64, 100))), (64, 64), True) == View(64, 64, 18, 0, True)


@pytest.mark.parametrize("source", [(150, 90), (90, 150), (33, 41), (64, 64), (640, 480)])
def test_pixels_equal_pillows_bicubic_in_floating_point(source):
    picture = example(noise(*source))
    view = center_view(picture, (64, 64))
    expected = float_bicubic(picture.open(), *covering_size(*source, (64, 64))).clamp(0, 255)
    expected = expected[:, view.top : view.top + 64, view.left : view.left + 64] / 127.5 - 1
    found = pixels(picture, view)
    assert found.shape == (3, 64, 64)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=2e-5)


def test_pixels_of_a_picture_of_the_right_size_are_exact():
    picture = example(noise(32, 24))
    expected = torch.from_numpy(np.array(picture.open())).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(pixels(picture, View(24, 32, 0, 0, False)), expected)
    assert torch.equal(pixels(picture, View(24, 32, 0, 0, True)), expected.flip(-1))
    assert expected.min() == -1
    assert expected.max() == 1


def test_values_stay_in_range_when_enlarging():
    found = pixels(example(noise(9, 9)), View(64, 64, 0, 0, False))
    assert found.min() == -1
    assert found.max() == 1


def test_views_have_distinct_texts():
    views = [View(8, 16, 0, 1, False), View(8, 16, 0, 1, True), View(8, 16, 1, 0, False), View(16, 8, 0, 1, False)]
    assert len({str(view) for view in views}) == 4


@pytest.mark.skipif(not DOG.is_dir(), reason=f"the photographs are not at {DOG}")
def test_a_real_photograph():
    with Image.open(DOG / "00.jpg") as file:
        photograph = example(file.convert("RGB"))
    found = pixels(photograph, center_view(photograph, (64, 64)))
    expected = float_bicubic(photograph.open(), *covering_size(photograph.width, photograph.height, (64, 64)))
    view = center_view(photograph, (64, 64))
    expected = expected[:, view.top : view.top + 64, view.left : view.left + 64].clamp(0, 255) / 127.5 - 1
    assert torch.allclose(found, expected, atol=2e-5)
