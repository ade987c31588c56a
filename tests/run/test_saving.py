"""What a run leaves."""

from safetensors import safe_open

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.run.attach import attach
from inlay.run.config import RunConfig
from inlay.run.directory import PIPELINE
from inlay.run.load import validate
from inlay.run.saving import save_result


def saved(tiny_base, photos, directory, **settings):
    """Save untrained attachments of a run; return its record."""
    data = {"source": str(photos), "prompt": "a photo of sks dog"}
    config = validate(RunConfig, {"base": str(tiny_base), "data": data, "train": {"steps": 1}, **settings})
    base = load_base(BaseSettings(model=str(tiny_base)))
    attachments = attach(config.methods, base, 0)
    directory.mkdir(exist_ok=True)
    record = {"versions": {"inlay": "1.2.3"}, "config_hash": "c0ffee", "costs": {"steps": 7}}
    save_result(config, base, attachments, record, directory)
    return record


def test_a_file_for_each_method_says_where_it_comes_from(tiny_base, photos, tmp_path):
    record = saved(tiny_base, photos, tmp_path / "run", method="bitfit", stack=[{"name": "lora", "rank": 1}])
    assert record["files"] == ["bitfit.safetensors", "stack-1/pytorch_lora_weights.safetensors"]
    paths = [tmp_path / "run" / name for name in record["files"]]
    assert record["costs"]["result_bytes"] == sum(path.stat().st_size for path in paths)
    for path, name in zip(paths, ("bitfit", "lora"), strict=True):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        assert f'"name":"{name}"' in metadata["inlay.method"]
        assert (metadata["inlay.version"], metadata["inlay.steps"]) == ("1.2.3", "7")
        assert (metadata["inlay.config_hash"], metadata["inlay.trigger"]) == ("c0ffee", "a photo of sks dog")


def test_a_pipeline_replaces_what_a_killed_process_left(tiny_base, photos, tmp_path):
    directory = tmp_path / "run"
    for left in (f".{PIPELINE}.unfinished", PIPELINE):
        (directory / left / "unet").mkdir(parents=True)
        (directory / left / "unet" / "half.safetensors").write_bytes(b"half")
    record = saved(tiny_base, photos, directory, method="full")
    assert record["files"] == [PIPELINE]
    assert [path.name for path in directory.iterdir()] == [PIPELINE]
    files = [path for path in (directory / PIPELINE).rglob("*") if path.is_file()]
    assert "half.safetensors" not in {path.name for path in files}
    assert record["costs"]["result_bytes"] == sum(path.stat().st_size for path in files)
