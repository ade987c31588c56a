import json

import numpy as np
import pytest

from inlay.errors import ConfigError
from inlay.run.compare.gather import gather
from inlay.run.compare.samples import Wanted, draw_anew, own_previews
from inlay.run.config import RunConfig
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.run.pictures import Block, Row, grid, read_grid, save_picture
from inlay.run.reporter import Silent

from .conftest import PROMPTS, flat_picture


def test_previews_of_the_same_prompts_and_noise_stand_side_by_side(make_run):
    runs, _ = gather([make_run("lora"), make_run("adapter", {"name": "adapter"})])
    samples = own_previews(runs)
    assert list(samples.prompts) == PROMPTS
    for run, shown in zip(runs, samples.runs, strict=True):
        first, second = shown.pictures[PROMPTS[1]]
        assert np.array_equal(first, flat_picture(len(run.name)))
        assert np.array_equal(second, flat_picture(40))
    assert np.array_equal(samples.before.pictures[PROMPTS[0]][1], flat_picture(20))
    assert np.array_equal(samples.training[0], flat_picture(9))


@pytest.mark.parametrize("change", [{"preview__seed": 1}, {"preview__prompts": ["a cat"]}, {"preview__guidance": 2.0}])
def test_previews_of_another_noise_are_not_shown_as_if_they_were_the_same(make_run, change):
    runs, _ = gather([make_run("one"), make_run("two", config=change)])
    samples = own_previews(runs)
    assert samples.runs[1].pictures == {}
    assert "its previews have other prompts, noise, guidance or size; `inlay compare --draw`" in samples.runs[1].note


def test_a_stopped_run_shows_its_latest_preview(make_run):
    stopped = make_run("two", steps=12, status="stopped")
    for step in (5, 10):
        rows = [Row(prompt, [Block(f"step {step}", [flat_picture(step)] * 2)]) for prompt in PROMPTS]
        save_picture(grid(rows), stopped / "previews" / f"step-{step:08d}.png")
    samples = own_previews(gather([make_run("one"), stopped])[0])
    assert samples.runs[1].note == "drawn at step 10"
    assert np.array_equal(samples.runs[1].pictures[PROMPTS[0]][0], flat_picture(10))


def test_a_run_without_pictures_says_why(make_run):
    other = make_run("two")
    (other / "samples.png").unlink()
    samples = own_previews(gather([make_run("one"), other, make_run("three", steps=2, status="stopped")])[0])
    assert "samples.png is missing" in samples.runs[1].note
    assert samples.runs[2].note == "stopped after step 2 of 20"


def test_with_several_bases_there_is_no_before(make_run):
    runs, _ = gather([make_run("one"), make_run("two", record={"base__hash": "e" * 64})])
    assert own_previews(runs).before.pictures == {}


def test_to_draw_a_finished_run_is_needed(make_run):
    runs, _ = gather([make_run("one", status=None)])
    with pytest.raises(ConfigError, match="none of the runs has finished"):
        draw_anew(runs, Wanted(), Silent())


def test_a_run_that_cannot_draw_says_why_and_the_others_draw(tuned, tiny_base):
    base = json.loads((tuned[0] / "record.json").read_text())["base"]
    record = json.loads((tuned[1] / "record.json").read_text())
    (tuned[1] / "record.json").write_text(json.dumps({**record, "base": {**base, "hash": "0" * 64}}))
    runs, _ = gather(tuned)
    drawn = draw_anew(runs, Wanted(("a dog",), pictures=1, steps=1), Silent())
    assert len(drawn.runs[0].pictures["a dog"]) == 1
    assert drawn.runs[1].pictures == {}
    assert "its weights have changed since" in drawn.runs[1].note
    assert drawn.before.pictures == {}


@pytest.fixture
def tuned(tiny_base, photos, tmp_path):
    """Two finished runs of a tiny base."""
    found = []
    for rank in (1, 2):
        config = {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a photo of sks dog"},
            "method": {"name": "lora", "rank": rank},
            "train": {"steps": 2, "batch_size": 2, "learning_rate": 0.1, "trackers": []},
            "preview": {"pictures": 2, "steps": 2},
        }
        found.append(execute(validate(RunConfig, config), tmp_path / f"rank{rank}").directory)
    return found


def test_real_runs_are_drawn_anew_from_one_noise_and_kept(tuned, monkeypatch):
    runs, _ = gather(tuned)
    own = own_previews(runs)
    assert np.array_equal(
        own.runs[0].pictures["a photo of sks dog"], read_grid(tuned[0] / "samples.png")["a photo of sks dog", "after"]
    )
    wanted = Wanted(("a dog", "a red ball"), pictures=2, seed=5, steps=2)
    drawn = draw_anew(runs, wanted, Silent())
    assert [len(drawn.before.pictures[prompt]) for prompt in drawn.prompts] == [2, 2]
    pictures = [drawn.before.pictures["a dog"], *(shown.pictures["a dog"] for shown in drawn.runs)]
    assert all(picture.shape == (32, 32, 3) for column in pictures for picture in column)
    for index, one in enumerate(pictures):
        for other in pictures[:index]:
            assert not np.array_equal(one, other)
    from inlay.run.draw import draw, load_target

    expected = draw(load_target(tuned[1], "cpu"), "a dog", 2, 5, 2, 7.0)
    assert np.array_equal(pictures[2], [one.pixels for one in expected])

    def refuse(*_):
        raise AssertionError("the pictures are in the cache")

    monkeypatch.setattr("inlay.run.compare.samples._load", refuse)
    again = draw_anew(runs, wanted, Silent())
    assert np.array_equal(again.runs[1].pictures["a red ball"], drawn.runs[1].pictures["a red ball"])
