"""Features of an image tower: range, resizing, batches."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from inlay.errors import DataError
from inlay.metrics import features


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tower")
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=12,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def pictures(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_right_size_is_only_scaled():
    images = pictures(2, 64)
    assert torch.equal(features.resize(images), torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)


def test_resizing_is_pillows_antialiased_bicubic():
    smooth = np.asarray(Image.fromarray(pictures(1, 8)[0]).resize((96, 96), Image.Resampling.BICUBIC))
    ours = (features.resize(smooth[None], 32)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    channels = [Image.fromarray(smooth[..., c].astype(np.float32)) for c in range(3)]
    pillows = np.stack([np.asarray(c.resize((32, 32), Image.Resampling.BICUBIC)) for c in channels], -1)
    assert np.abs(ours - pillows.clip(0, 255)).max() < 0.1


def test_features_do_not_depend_on_the_batch(tower):
    images = pictures(5, 16)
    whole, parts = (features.image_features(images, batch, tower) for batch in (5, 2))
    assert whole.shape == (5, 12)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, parts, atol=1e-5)


def test_features_of_nothing_are_empty(tower):
    assert features.image_features(pictures(0, 16), folder=tower).shape == (0, 12)


def test_fingerprint_follows_the_weights(tower, tmp_path):
    assert features.fingerprint(tower) == features.fingerprint(tower)
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert features.fingerprint(tmp_path) != features.fingerprint(tower)


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)])
def test_what_is_no_batch_of_images_is_refused(wrong):
    with pytest.raises(DataError, match="uint8"):
        features.resize(wrong)
