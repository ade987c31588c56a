"""What a run directory is, and who may write it; with runs of one step."""

import json
import shutil

import pytest

import inlay
from inlay.errors import ConfigError
from inlay.run.directory import alone_in, read_config
from inlay.run.draw import load_target


@pytest.fixture
def tune(tiny_base, photos, tmp_path):
    """Return a function that tunes for a step through the library, with paths as Python has them."""

    def run(output="run", source=photos, on_error="stop", **train):
        return inlay.tune(
            base=tiny_base,
            data={"source": source, "prompt": "ein [b]Hund[/b] 🐶", "on_error": on_error},
            method={"name": "lora", "rank": 1},
            train={"steps": 1, "batch_size": 2, "trackers": [], **train},
            preview={"pictures": 1, "steps": 1},
            output=tmp_path / output,
        )

    return run


def test_runs_of_several_precisions_share_a_process(tune):
    assert all(tune(precision, precision=precision).finished for precision in ("fp32", "bf16", "fp16"))


def test_pictures_that_were_left_out_stand_in_the_record(tune, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "broken.png").write_bytes(b"junk")
    result = tune(source=tmp_path / "photos", on_error="skip")
    [skipped] = json.loads((result.directory / "record.json").read_text())["data"]["skipped"]
    assert skipped["id"] == "broken.png"
    assert "not a picture format" in skipped["reason"]


def test_a_saved_run_file_names_no_place(tune, tmp_path):
    from inlay.cli.tune import output_directory

    result = tune()
    assert read_config(result.directory).output is None
    moved = result.directory.rename(tmp_path / "moved")
    assert output_directory(None, moved / "run.yaml") == moved
    assert output_directory("other", moved / "run.yaml").name == "other"
    assert output_directory(None, tmp_path / "run.yaml").parts == ("runs", "run")
    [drawn] = inlay.sample(moved, "ein [b]Hund[/b]", pictures=1, steps=1)
    assert drawn.prompt == "ein [b]Hund[/b]"


def test_two_processes_do_not_write_one_run(tmp_path):
    with alone_in(tmp_path), pytest.raises(ConfigError, match="another process is at work"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


def test_hidden_files_are_not_other_files(tune, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".4711.run.yaml").write_text("half")
    assert tune().finished


def test_settings_that_change_no_weights_are_not_named_as_different(tune):
    tune(checkpoint_every=7)
    with pytest.raises(ConfigError, match=r"other settings \(train\.learning_rate\)"):
        tune(checkpoint_every=8, learning_rate=1.0)
    assert tune(checkpoint_every=8).repeated


def test_a_folder_of_pictures_is_no_target(photos):
    with pytest.raises(ConfigError, match=r"neither a run directory \(no run\.yaml\) nor a base"):
        load_target(str(photos))
