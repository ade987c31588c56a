"""What configuration files say about a base, and which bases are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from inlay.base.architecture import TEXT_WIDTH_KEYS, Architecture, architecture_folder, read_architecture
from inlay.base.locate import BUILT_IN, locate
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError
from tests.tiny import make_tiny_checkpoint


def read(model: Path | str, weights: bool = False, **settings: Any) -> Architecture:
    given = BaseSettings(model=str(model), **settings)
    return read_architecture(given, locate(given, weights=weights))


def change(path: Path, **values: Any) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **values}), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "counts", "facts"),
    [
        # The published checkpoints: U-Net, autoencoder, and CLIP ViT-L/14 or OpenCLIP ViT-H/14 without its last layer.
        ("sd-v1.4", (859_520_964, 83_653_863, 123_060_480), (512, 8, "epsilon", (77, 768))),
        ("sd-v2.1", (865_910_724, 83_653_863, 340_387_840), (768, 8, "v_prediction", (77, 1024))),
    ],
)
def test_built_in_architectures(name: str, counts: tuple[int, ...], facts: tuple[Any, ...]):
    architecture = read(name)
    parts = architecture.meta()
    assert list(parts) == ["unet", "vae", "text_encoder"]
    assert tuple(sum(p.numel() for p in part.parameters()) for part in parts.values()) == counts
    assert {p.device.type for part in parts.values() for p in part.parameters()} == {"meta"}
    assert not any(p.requires_grad for part in parts.values() for p in part.parameters())
    assert (architecture.resolution, architecture.downscale) == facts[:2]
    assert (architecture.prediction, architecture.text_shape) == facts[2:]


def test_the_schedule_of_stable_diffusion():
    # Scaled linear: the square roots of beta rise evenly from 0.00085 to 0.012 (latent-diffusion, make_beta_schedule)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(read("sd-v1.4").alphas_cumprod().double(), expected, atol=1e-6, rtol=1e-5)


def test_a_tiny_pipeline_is_described(first: Path, second: Path):
    assert (read(first).resolution, read(first).downscale) == (32, 4)
    assert (read(first).prediction, read(second).prediction) == ("epsilon", "v_prediction")
    assert (read(first).text_shape, read(second).text_shape) == ((77, 32), (77, 64))


def test_the_prediction_can_be_stated(first: Path):
    assert read(first, prediction="v_prediction").prediction == "v_prediction"


def test_zero_terminal_snr_follows_the_files_or_the_setting(first: Path, copied: Path):
    assert read(first).alphas_cumprod()[-1] > 0
    stated = read(first, zero_terminal_snr=True)
    assert stated.alphas_cumprod()[-1] == 0
    assert stated.scheduler["timestep_spacing"] == "trailing"
    change(copied / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True)
    assert read(copied).alphas_cumprod()[-1] == 0
    assert read(copied, zero_terminal_snr=False).alphas_cumprod()[-1] > 0


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("unet", {"_class_name": "UNet3DConditionModel"}, "the denoiser is a UNet3DConditionModel; allowed: the"),
        ("unet", {"addition_embed_type": "image"}, r"with added embeddings \(image\)"),
        ("unet", {"in_channels": 9}, "takes 9 channels and latents have 4; models for inpainting"),
        ("scheduler", {"beta_start": None}, None),
        ("scheduler", {"prediction_type": "flow"}, "predicts 'flow'; allowed: epsilon, v_prediction, sample"),
    ],
)
def test_relatives_of_stable_diffusion_are_refused(copied: Path, file: str, values: dict[str, Any], message: str):
    path = copied / file / ("scheduler_config.json" if file == "scheduler" else "config.json")
    change(path, **values)
    if message is None:  # a flow-matching scheduler does not know the key at all
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({k: v for k, v in config.items() if "beta" not in k}), encoding="utf-8")
        message = "states no schedule of betas"
    with pytest.raises(ConfigError, match=message):
        read(copied)


def test_a_broken_configuration_is_named(copied: Path):
    (copied / "vae" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"vae/config\.json: not a readable configuration"):
        read(copied)


def folder_of(path: Path, **settings: Any) -> Path:
    given = BaseSettings(model=str(path), **settings)
    return architecture_folder(given, locate(given))


def with_text_width(path: Path, width: int) -> Path:
    save_file({TEXT_WIDTH_KEYS[0]: torch.zeros(2, width)}, path)
    return path


def test_a_checkpoint_is_known_by_the_width_of_its_text_states(tmp_path: Path):
    assert folder_of(with_text_width(tmp_path / "one.safetensors", 768)) == BUILT_IN["sd-v1.4"]
    two = with_text_width(tmp_path / "two.safetensors", 1024)
    assert folder_of(two, prediction="v_prediction") == BUILT_IN["sd-v2.1"]
    assert folder_of(two, architecture="sd-v2.1") == BUILT_IN["sd-v2.1"]
    with pytest.raises(ConfigError, match=r"2\.x checkpoint does not say what it predicts; give base\.prediction"):
        folder_of(two)
    with pytest.raises(ConfigError, match=r"text states of width 32 belong to no built-in .* give base\.architecture"):
        folder_of(make_tiny_checkpoint(tmp_path))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a checkpoint of Stable Diffusion 1\.x, 2\.x or XL"):
        folder_of(path)
    with pytest.raises(ConfigError, match=r"base\.architecture=nowhere: allowed are sd-v1\.4, sd-v2\.1, sdxl and dir"):
        folder_of(path, architecture="nowhere")
