"""What a run draws of its own prompts."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.data.dataset import load_dataset
from inlay.run.config import PreviewSettings, RunConfig
from inlay.run.load import validate
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


def test_samples_show_pictures_before_and_after(previews, tmp_path):
    made = previews(pictures=1)
    made.save_samples(None, tmp_path / "alone.png")
    made.save_samples(torch.zeros_like(made.draw()), tmp_path / "both.png")
    made.save_step(3, tmp_path / "steps" / "step.png")
    alone, both = (np.asarray(Image.open(tmp_path / name)) for name in ("alone.png", "both.png"))
    assert both.shape[1] > alone.shape[1] or both.shape[0] > alone.shape[0]
    assert (tmp_path / "steps" / "step.png").exists()
