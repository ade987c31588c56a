"""What a base draws before it learned anything is drawn once, whatever is attached to it later; references too."""

from __future__ import annotations

import numpy as np
import pytest

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.data.sources import Example
from inlay.data.tabletop import World
from inlay.methods import METHODS
from inlay.metrics.extractors import extract, load
from inlay.run.attach import attach
from inlay.run.evaluation.drawing import Drawing
from inlay.run.evaluation.measuring import References
from tests.contracts.bases import perturb

PROMPTS = ["a dog", "a dog on grass"]
DRAWING = Drawing(pictures=2, steps=2, guidance=2.0, negative_prompt="", seed=0, side=32)


@pytest.fixture
def base(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))
    return load_base(BaseSettings(model=str(tiny_base)))


def draw(base, drawing=DRAWING, prompts=PROMPTS, purpose="evaluation"):
    """Return what is drawn, and how often it was told of drawing."""
    told = []
    shots = drawing.draw_base(base, prompts, lambda done, total: told.append((done, total)), purpose)
    return shots, len(told)


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True))


def test_pictures_are_drawn_once_and_are_those_that_drawing_gives(base):
    first, told = draw(base)
    again, told_again = draw(base)
    plain = DRAWING.draw(base, PROMPTS, PROMPTS, lambda done, total: None)
    assert (told > 0, told_again) == (True, 0)
    for shots in (first, again):
        assert same(shots, plain)
        assert (shots.prompts, shots.pairing) == (plain.prompts, plain.pairing)


@pytest.mark.parametrize(
    "other",
    [
        {"drawing": Drawing(2, 3, 2.0, "", 0, 32)},
        {"drawing": Drawing(2, 2, 3.0, "", 0, 32)},
        {"drawing": Drawing(2, 2, 2.0, "blur", 0, 32)},
        {"drawing": Drawing(2, 2, 2.0, "", 1, 32)},
        {"drawing": Drawing(2, 2, 2.0, "", 0, 48)},
        {"drawing": Drawing(1, 2, 2.0, "", 0, 32)},
        {"drawing": Drawing(2, 2, 2.0, "", 0, 32, "bf16")},
        {"prompts": ["a dog on grass", "a dog"]},
        {"purpose": "other"},
    ],
)
def test_whatever_changes_them_is_drawn_anew(base, other):
    draw(base)
    assert draw(base, **other)[1] > 0


def test_other_weights_draw_anew(base):
    draw(base)
    base.part_hashes = {**base.part_hashes, "unet": "0" * 64}
    assert draw(base)[1] > 0
    base.part_hashes = {"vae": base.part_hashes["vae"]}  # as of a denoiser from scratch: nothing names it
    assert draw(base)[1] > 0
    assert draw(base)[1] > 0


def test_a_method_that_is_disabled_finds_the_same_pictures(base):
    first, _ = draw(base)
    [attachment] = attach([METHODS["lora"](rank=2)], base, 0)
    perturb(attachment)
    with attachment.disabled():
        found, told = draw(base)
        fresh = DRAWING.draw(base, PROMPTS, PROMPTS, lambda done, total: None)
    assert told == 0
    assert same(found, first)
    assert same(fresh, first)
    assert not same(DRAWING.draw(base, PROMPTS, PROMPTS, lambda done, total: None), first)


def test_references_whose_features_are_kept_are_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path))
    tower = load("tabletop", tmp_path)
    features = References.read("tabletop:test", 3, 64, "reference").of(tower).values
    drawn = [World("test")[index].image for index in range(4)]
    assert np.array_equal(features, extract(tower, drawn[:3]).values)
    opened = []
    plain = Example.open
    monkeypatch.setattr(Example, "open", lambda example: opened.append(example.id) or plain(example))
    assert np.array_equal(References.read("tabletop:test", 3, 64, "reference").of(tower).values, features)
    assert opened == []
    more = References.read("tabletop:test", 4, 64, "reference").of(tower).values
    assert opened == ["tabletop:test/3"]
    assert more == pytest.approx(extract(tower, drawn).values, abs=1e-5)  # other batches, other roundings
