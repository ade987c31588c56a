"""From a name to files: what is found, and what each refusal says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from inlay.base.locate import BUILT_IN, locate, weight_files
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError


def test_a_directory_in_diffusers_layout(first: Path):
    location = locate(BaseSettings(model=str(first)))
    assert (location.kind, location.path) == ("directory", first)


def test_the_home_directory_is_expanded(first: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(first.parent))
    assert locate(BaseSettings(model=f"~/{first.name}")).path == first


def test_a_checkpoint(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    location = locate(BaseSettings(model=str(path)))
    assert (location.kind, location.path) == ("checkpoint", path)


def test_built_in_architectures_have_no_weights():
    assert list(BUILT_IN) == ["sd-v1.4", "sd-v2.1", "sdxl"]
    for name, path in BUILT_IN.items():
        location = locate(BaseSettings(model=name), weights=False)
        assert (location.kind, location.path) == ("architecture", path)
        with pytest.raises(ConfigError, match=f"base.model={name} is an architecture without weights"):
            locate(BaseSettings(model=name))


def test_a_hub_id_in_the_cache_is_found_offline(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(first, repository / "snapshots" / "0123456789")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123456789", encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    location = locate(BaseSettings(model="someone/tiny"))
    assert (location.kind, location.path) == ("directory", repository / "snapshots" / "0123456789")


def test_a_hub_id_that_cannot_be_reached_is_one_clear_error():
    with pytest.raises(ConfigError, match=r"base\.model=someone/else: no such directory here, and the hub") as raised:
        locate(BaseSettings(model="someone/else"))
    assert "download it elsewhere and give its directory" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.safetensors", r"base\.model=missing\.safetensors: no such file"),
        ("sd-v1.5", r"base\.model=sd-v1\.5: no such directory or file; did you mean 'sd-v1\.4'\?"),
        ("tabeltop", r"did you mean 'tabletop'\? \(allowed: tabletop, sd-v1\.4, sd-v2\.1, sdxl, a directory in"),
        ("./nothing/here", r"base\.model=\./nothing/here: no such directory or file \(allowed"),
    ],
)
def test_a_name_that_is_nothing(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        locate(BaseSettings(model=name))


def test_a_pickled_checkpoint_is_refused(tmp_path: Path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"\x80\x04")
    with pytest.raises(ConfigError, match=r"model\.ckpt: only \.safetensors checkpoints are read"):
        locate(BaseSettings(model=str(path)))


def test_a_directory_of_something_else_says_what_is_missing(copied: Path):
    (copied / "vae" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"diffusers' layout; missing: vae/config\.json$"):
        locate(BaseSettings(model=str(copied)))


def test_weights_in_one_file_in_shards_or_in_half_precision(copied: Path):
    folder = copied / "unet"
    single = folder / "diffusion_pytorch_model.safetensors"
    assert weight_files(copied, "unet") == [single]
    half = single.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    assert weight_files(copied, "unet") == [half]
    shards = [folder / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for shard in reversed(shards):
        shard.touch()
    assert weight_files(copied, "unet") == shards


def test_pickled_weights_are_refused(copied: Path):
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        file = copied / part / f"{name}.safetensors"
        file.unlink()
        with pytest.raises(ConfigError, match=rf"no weights {name}\.safetensors for the base's {part}$"):
            weight_files(copied, part)
        file.with_suffix(".bin").touch()
        with pytest.raises(ConfigError, match=r"a pickled \.bin is not read: it can run code"):
            weight_files(copied, part)
