"""Masked training: the loss of a step is the plain one with each latent pixel's square weighed."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.data.dataset import Dataset
from inlay.data.masks import Mask
from inlay.data.prior import make_prior
from inlay.data.settings import DataSettings, MaskSettings, PriorSettings
from inlay.data.sources import Example, Loaded
from inlay.data.views import mask_weights
from inlay.objective.settings import Objective
from inlay.train.diffusion import Diffusion


def example(number: int, caption: str = "a sks dog", masked: bool = True) -> Example:
    def mask() -> Image.Image:
        found = Image.new("L", (32, 32))
        found.paste(255, (0, 0, 8 * (number + 1), 16))
        return found

    return Example(
        f"{caption} {number}",
        caption,
        f"{caption} {number}",
        32,
        32,
        lambda: Image.new("RGB", (32, 32), (60 * number, 99, 200)),
        Mask(f"mask {number}", mask) if masked else None,
    )


def diffusion(base, settings: DataSettings, with_prior: bool = False) -> Diffusion:
    subject = Dataset(tuple(example(number) for number in range(3)), (), settings, 32)
    prior = None
    if with_prior:
        pictures = [example(number, "a dog", masked=False) for number in range(3)]
        prior = make_prior(subject, Loaded(pictures, [], []), [], "").dataset
    made = Diffusion(base, subject, Objective(), seed=0, tuned=frozenset({"unet"}), prior=prior)
    made.build_caches(lambda what, done, total: None)
    return made


@pytest.fixture
def base(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))
    return load_base(BaseSettings(model=str(tiny_base)))


@pytest.mark.parametrize("crop", ["center", "random"])
def test_masked_losses_are_the_squares_weighed_by_place(base, crop):
    settings = DataSettings(source="photos", crop=crop, horizontal_flip=0.5, mask=MaskSettings(outside=0.2))
    masked = diffusion(base, settings)
    batch = masked.dataset.batch(0, 0, 4)
    seen = {}

    def squares(noisy, timesteps, states):
        seen["output"] = torch.zeros_like(noisy)  # so that the square is the target's
        return seen["output"]

    base.predict = squares
    with torch.no_grad():
        found = masked.losses([batch], 0, slice(1, 3))
        clean, _, noise, timesteps = masked._drawn(batch, 0, slice(1, 3))
    target = masked.path.target("epsilon", clean, noise, timesteps)
    places = torch.stack(
        [
            mask_weights(item.example, item.view, MaskSettings(outside=0.2), base.architecture.downscale)
            for item in batch.items[1:3]
        ]
    )
    assert places.std() > 0.1
    torch.testing.assert_close(found[0], (target.square() * places).mean((1, 2, 3)))


def test_class_pictures_have_no_mask_and_count_alike_everywhere(base):
    prior = PriorSettings(prompt="a dog")
    plain = diffusion(base, DataSettings(source="photos", prior=prior), with_prior=True)
    masked = diffusion(base, DataSettings(source="photos", prior=prior, mask=MaskSettings()), with_prior=True)
    assert masked.prior is not None
    assert masked.prior.settings.mask is None
    rows = []
    for one in (plain, masked):
        assert one.prior is not None
        with torch.no_grad(), base.evaluating():
            rows.append(one.losses([one.dataset.batch(0, 0, 3), one.prior.batch(5, 0, 3)], 0, slice(0, 3)))
    assert not torch.allclose(rows[0][0], rows[1][0], rtol=1e-3)
    torch.testing.assert_close(rows[0][1], rows[1][1])


def test_a_mask_is_read_once_however_often_it_is_seen(base):
    settings = DataSettings(source="photos", prior=PriorSettings(prompt="a dog"), mask=MaskSettings())
    masked = diffusion(base, settings, with_prior=True)

    def unreadable():
        raise AssertionError("a training step read a mask")

    for example in masked.dataset.examples:
        assert example.mask is not None
        object.__setattr__(example.mask, "reader", unreadable)
    assert masked.prior is not None
    with torch.no_grad(), base.evaluating():
        masked.losses([masked.dataset.batch(0, 0, 3), masked.prior.batch(5, 0, 3)], 0, slice(0, 3))
