"""What a run draws of its own prompts."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.data.dataset import load_dataset
from inlay.run.config import PreviewSettings, RunConfig
from inlay.run.load import validate
from inlay.run.pictures import read_grid
from inlay.run.previews import Previews
from inlay.run.reporter import Silent


@pytest.fixture
def previews(tiny_base, photos):
    """Return a function that makes previews of the tiny base from settings and captions."""
    base = load_base(BaseSettings(model=str(tiny_base)))
    config = validate(
        RunConfig,
        {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a dog"},
            "method": "lora",
            "train": {"steps": 1},
        },
    )
    dataset = load_dataset(config.data, 32, 0, base.architecture.granularity)

    def build(captions=("a dog",), **settings):
        given = PreviewSettings(steps=2, **settings)
        return Previews(given, base, dataset, captions, nullcontext, Silent())

    return build


def test_the_first_captions_are_drawn_where_the_run_file_names_no_prompts(previews):
    captions = [f"caption {number}" for number in range(6)]
    assert previews(captions, pictures=2).prompts == [text for text in captions[:4] for _ in range(2)]
    assert previews(captions, pictures=1, prompts=("a cat",)).prompts == ["a cat"]


def test_each_prompt_begins_from_the_same_noise_each_time(previews):
    drawn = previews(prompts=("a dog", "a dog"), pictures=2).draw()
    assert drawn.shape == (4, 32, 32, 3)
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn[:2], drawn[2:])
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(previews(prompts=("a dog",), pictures=2).draw(), drawn[:2])


def test_samples_show_training_pictures_and_each_prompt_before_and_after(previews, tmp_path):
    made = previews(prompts=("a dog", "a cat"), pictures=1)
    before, after = torch.zeros(2, 32, 32, 3, dtype=torch.uint8), made.draw()
    made.save_samples(before, tmp_path / "both.png")
    shown = read_grid(tmp_path / "both.png")
    trained = shown.pop(("pictures it was trained on", "2 of 6"))
    assert len(trained) == 2
    assert list(shown) == [(text, when) for text in ("a dog", "a cat") for when in ("before", "after")]
    assert not shown["a dog", "before"][0].any()
    assert np.array_equal(shown["a cat", "after"][0], after[1])


def test_samples_of_a_run_from_scratch_and_of_a_step_show_no_before(previews, tmp_path):
    made = previews(pictures=1)
    made.save_samples(None, tmp_path / "samples.png")
    assert list(read_grid(tmp_path / "samples.png"))[1:] == [("a dog", "samples")]
    made.save_step(3, tmp_path / "steps" / "step.png")
    assert list(read_grid(tmp_path / "steps" / "step.png")) == [("a dog", "step 3")]
