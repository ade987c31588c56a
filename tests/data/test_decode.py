from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from inlay.data.decode import decode


def encode(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(picture, kind="PNG", background="white", **options):
    result = decode(encode(picture, kind, **options), background)
    assert result.mode == "RGB"
    return np.asarray(result).astype(int)


COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8))


def test_rgb_is_returned_as_it_is():
    assert np.array_equal(decoded(COLOURS), np.asarray(COLOURS))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decoded(COLOURS, exif=exif), turned(np.asarray(COLOURS)))


@pytest.mark.parametrize(("background", "expected"), [("white", (255, 127, 127)), ("#0000ff", (128, 0, 127))])
def test_transparency_lies_on_the_background(background, expected):
    half_red = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert np.abs(decoded(half_red, background=background)[0, 0] - expected).max() <= 1


def test_hidden_colours_of_transparent_pixels_do_not_show():
    assert (decoded(Image.new("RGBA", (2, 2), (9, 99, 200, 0))) == 255).all()


def test_transparency_of_grey_and_palette_pictures_lies_on_the_background():
    grey = Image.new("LA", (2, 2), (10, 0))
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 50, 60, 70])
    assert (decoded(grey, background="#123456")[0, 0] == (0x12, 0x34, 0x56)).all()
    assert (decoded(palette, background="#123456", transparency=1)[0, 0] == (0x12, 0x34, 0x56)).all()
    assert (decoded(palette)[0, 0] == (50, 60, 70)).all()


def test_sixteen_bit_grey_is_rounded_to_eight_bits():
    values = np.array([[0, 128, 129, 256, 257, 32768, 65279, 65535]], dtype=np.uint16)
    expected = np.round(values / 257).astype(int)
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(decoded(Image.fromarray(values), kind)[..., 1], expected)


def test_cmyk_becomes_rgb():
    cyan_and_black = Image.fromarray(np.array([[[255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8), mode="CMYK")
    assert decoded(cyan_and_black, "TIFF").tolist() == [[[0, 255, 255], [0, 0, 0]]]
    assert np.abs(decoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG") - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_has_three_equal_channels(mode):
    values = decoded(COLOURS.convert(mode))
    assert np.array_equal(values[..., 0], np.asarray(COLOURS.convert(mode).convert("L")))
    assert (values == values[..., :1]).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    values = decoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(values - (255, 0, 0)).max() <= 3


def test_floating_point_and_wide_integers_are_refused():
    with pytest.raises(ValueError, match="floating-point pixels have no stated range"):
        decoded(Image.new("F", (2, 2), 0.5), "TIFF")
    with pytest.raises(ValueError, match="32-bit integer pixels have no stated range"):
        decoded(Image.new("I", (2, 2), 70000), "TIFF")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_truncated_files_are_refused(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encode(noise, kind)
    with pytest.raises(ValueError, match=r"\w"):
        decode(content[: len(content) // 2], "white")


def test_files_that_are_no_pictures_are_refused():
    with pytest.raises(ValueError, match="the file is empty"):
        decode(b"", "white")
    with pytest.raises(ValueError, match="not a picture format that can be read"):
        decode(b"<svg></svg>", "white")
