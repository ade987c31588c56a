"""Masks: where they come from, what they weigh, and what training does with the weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inlay.data.dataset import load_dataset
from inlay.data.masks import Mask, picture_of
from inlay.data.settings import DataSettings, MaskSettings
from inlay.data.sources import Example, load_examples
from inlay.data.tabletop import World
from inlay.data.views import View, center_view, mask_weights
from inlay.errors import DataError


def load(source, **settings):
    return load_examples(DataSettings(source=str(source), prompt="a dog", mask=MaskSettings(), **settings), 64)


def box(width: int, height: int, left: int, top: int, right: int, bottom: int) -> Image.Image:
    """Return a black mask with a white rectangle."""
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    return Image.fromarray(mask)


def example(mask: Image.Image | None, width: int = 64, height: int = 64) -> Example:
    held = None if mask is None else Mask("m", lambda: mask)
    return Example("dog", "a dog", "p", width, height, lambda: Image.new("RGB", (width, height)), held)


def weights(mask, outside=0.1, size=(64, 64), picture=(64, 64), flip=False):
    one = example(mask, *picture)
    return mask_weights(one, center_view(one, size, flip), MaskSettings(outside=outside), 8)


@pytest.fixture
def masked(folder):
    """The folder's three pictures with a mask each, of both kinds of name."""
    for name in ("a.mask.png", "b-masklabel.png", "sub/c.Mask.PNG"):
        box(24, 16, 4, 4, 12, 12).save(folder / name, "PNG")
    return folder


def test_a_mask_file_is_no_picture_and_belongs_to_the_picture_of_its_stem(masked):
    loaded = load(masked)
    assert [one.id for one in loaded.examples] == ["a.png", "b.png", "sub/c.png"]
    for one in loaded.examples:
        assert one.mask is not None
        assert np.array_equal(np.asarray(one.mask.reader()), np.asarray(box(24, 16, 4, 4, 12, 12)))
    plain = load_examples(DataSettings(source=str(masked), prompt="a dog"), 64)
    assert [one.mask for one in plain.examples] == [None] * 3


def test_names_of_masks():
    assert picture_of("sub/dog.mask.png") == picture_of("sub/dog-masklabel.png") == "sub/dog"
    assert picture_of("mask.png") is None
    assert picture_of("dog.mask.jpg") is None


def test_without_a_file_the_opaque_part_is_the_mask(tmp_path):
    picture = np.full((16, 24, 4), 200, np.uint8)
    picture[..., 3] = np.asarray(box(24, 16, 4, 4, 12, 12))
    Image.fromarray(picture).save(tmp_path / "dog.png")
    [one] = load(tmp_path).examples
    assert one.mask is not None
    assert np.array_equal(np.asarray(one.mask.reader()), picture[..., 3])


def test_a_picture_without_a_mask_is_refused_by_name(masked, refusal):
    (masked / "b-masklabel.png").unlink()
    said = refusal(masked, prompt="a dog", mask=MaskSettings())
    assert "b.png: data.mask asks for its mask: a file NAME.mask.png or NAME-masklabel.png beside it" in said
    assert "a.png" not in said
    assert "1 of 3 pictures have no mask that fits:" in said
    assert "decoded" not in said


def test_a_mask_of_another_size_and_one_without_a_picture_are_refused_together(masked, refusal):
    box(12, 16, 0, 0, 4, 4).save(masked / "a.mask.png")
    box(12, 16, 0, 0, 4, 4).save(masked / "d.mask.png")
    said = refusal(masked, prompt="a dog", mask=MaskSettings())
    assert "a.png: its mask has 12 x 16 pixels and it has 24 x 16; make them the same" in said
    assert "d.mask.png: a mask without a picture" in said


@pytest.mark.parametrize("source", ["digits", "x-{000..001}.tar"])
def test_sources_without_masks_say_so(source):
    with pytest.raises(DataError, match=f"data.mask: {source.split('{')[0]}.* has no masks"):
        load(source)


def test_a_rendered_picture_is_masked_where_its_things_are():
    [one, *_] = load("tabletop:subject/pip").examples
    assert one.mask is not None
    inside = np.asarray(one.mask.reader()) > 127
    assert 0.05 < inside.mean() < 0.5
    rows, columns = np.nonzero(inside)
    assert abs(columns.mean() - 32) < 8  # subjects stand in the centre
    # The mask leaves the picture as it is, and its edge is where the picture changes.
    picture = World("subject/pip")[0].image.astype(int)
    across = np.abs(np.diff(picture, axis=1)).sum(2)
    edge = np.diff(inside.astype(int), axis=1) != 0
    assert across[edge].mean() > 2 * across[~edge].mean()
    assert rows.min() > 0


def test_weights_are_one_on_average_and_in_proportion_inside_and_outside():
    found = weights(box(64, 64, 0, 0, 32, 64), outside=0.25)
    assert found.shape == (1, 8, 8)
    assert torch.allclose(found[0, :, :4], torch.tensor(1.6))
    assert torch.allclose(found[0, :, 4:], torch.tensor(0.4))


def test_a_latent_pixel_has_the_mean_of_its_pixels():
    found = weights(box(64, 64, 0, 0, 4, 8), outside=0.1)[0]
    assert found[0, 0] / found[4, 4] == pytest.approx((0.1 + 0.9 / 2) / 0.1)


@given(outside=st.floats(0.01, 0.99), left=st.integers(0, 60), width=st.integers(1, 64), flip=st.booleans())
def test_weights_average_one_and_follow_the_picture_when_it_is_mirrored(outside, left, width, flip):
    mask = box(64, 64, left, 10, min(64, left + width), 50)
    found = weights(mask, outside, flip=flip)
    assert found.mean().item() == pytest.approx(1, abs=1e-5)
    assert found.min() > 0
    assert torch.allclose(found.flip(-1), weights(mask, outside, flip=not flip), atol=1e-6)


def test_weights_are_scaled_and_cut_with_the_picture():
    # 128 x 64 pixels, of which the middle 64 x 64 are seen; the white quarter at the left edge is cut away.
    one = example(box(128, 64, 0, 0, 32, 64), 128, 64)
    assert torch.allclose(weights(one.mask.reader(), picture=(128, 64)), torch.ones(1, 8, 8))
    # At half the size the middle is what is left too, and the shape of the latents follows.
    half = weights(box(128, 64, 48, 0, 80, 64), picture=(128, 64), size=(32, 32))
    assert half.shape == (1, 4, 4)
    assert (half[0, :, 1:3] > half[0, :, [0, 3]]).all()


def test_a_picture_without_a_mask_counts_alike_everywhere():
    assert torch.equal(weights(None), torch.ones(1, 8, 8))


def test_a_mask_that_has_gone_is_named(masked):
    [one, *_] = load(masked).examples
    (masked / "a.mask.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: its mask was there when the run began"):
        mask_weights(one, View(16, 16, 0, 0, False), MaskSettings(), 8)


def test_masks_are_part_of_what_the_data_are(masked):
    settings = DataSettings(source=str(masked), prompt="a dog", mask=MaskSettings())
    hashes = [load_dataset(settings.model_copy(update={"mask": None}), 64).hash, load_dataset(settings, 64).hash]
    hashes.append(load_dataset(settings.model_copy(update={"mask": MaskSettings(outside=0.2)}), 64).hash)
    box(24, 16, 0, 0, 12, 12).save(masked / "a.mask.png")
    hashes.append(load_dataset(settings, 64).hash)
    assert all(one != other for one, other in pairwise(hashes))
    dataset = load_dataset(settings, 64)
    assert replace(dataset, notes=("again",)).hash == hashes[-1]
