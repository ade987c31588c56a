"""Extractors by name: what they load, how they resize, what they say when weights are missing."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

from inlay.base.locate import EMBEDDED
from inlay.data.tabletop import World
from inlay.errors import ArtifactError, ConfigError, DataError
from inlay.metrics import extractors
from inlay.metrics.alignment import clip_text
from inlay.metrics.features import image_features
from inlay.metrics.inception import Inception


def pictures(count: int = 3, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(
        **tower, vocab_size=1597, max_position_embeddings=32, bos_token_id=1595, eos_token_id=1596, pad_token_id=1596
    )
    vision = CLIPVisionConfig(**tower, image_size=32, patch_size=16)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    ).save_pretrained(folder)
    for file in (EMBEDDED / "tokenizer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_embedded_towers_match_pictures_with_their_captions(tmp_path):
    extractor = extractors.load("tabletop", tmp_path)
    world = World("test")
    shown = [world[index] for index in range(24)]
    images = extractors.extract(extractor, [picture.image for picture in shown])
    captions = extractors.extract_texts(extractor, [picture.caption for picture in shown])
    assert images.values.shape == (24, extractors.WIDTHS["tabletop"])
    assert images.values == pytest.approx(image_features(np.stack([picture.image for picture in shown])), abs=1e-4)
    small, large = shown[0].image, np.kron(shown[1].image, np.ones((2, 1, 1), np.uint8))
    mixed = extractors.extract(extractor, [small, large])  # of unequal sizes
    assert mixed.values == pytest.approx(
        np.concatenate([image_features(small[None]), image_features(large[None])]), abs=1e-4
    )
    rotated = extractors.Features(np.roll(captions.values, 1, 0), captions.extractor, captions.fingerprint)
    assert clip_text(images, captions).value > clip_text(images, rotated).value + 0.1
    # retrieval among 24 captions, by chance 1 in 24; the model card says 80 % among 64
    assert ((images.unit @ captions.unit.T).argmax(1) == np.arange(24)).mean() > 0.6


def test_a_clip_of_any_size_has_both_towers(clip, tmp_path):
    extractor = extractors.load(f"clip:{clip}", tmp_path)
    assert extractor.name == "clip:tiny-clip"
    images, texts = extractors.extract(extractor, pictures()), extractors.extract_texts(extractor, ["a ball", "a cube"])
    assert (images.values.shape, texts.values.shape) == ((3, 12), (2, 12))
    tokens = AutoTokenizer.from_pretrained(clip)(["a cube"], return_tensors="pt")
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(clip).eval().get_text_features(**tokens).pooler_output
    assert texts.values[1] == pytest.approx(expected[0].numpy(), abs=1e-5)


def test_clip_pictures_are_what_transformers_makes_of_the_same_pixels(clip, tmp_path):
    extractor = extractors.load(f"clip:{clip}", tmp_path)
    square = pictures(2, 32, 32)  # of the right size: no resizing, only normalisation
    pixels = torch.tensor(square).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (extractors.CLIP_MEAN, extractors.CLIP_DEVIATION))
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(clip).eval().get_image_features((pixels - mean) / deviation).pooler_output
    assert extractors.extract(extractor, square).values == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", ["dino", "dinov2"])
def test_both_dinos_give_the_class_token(kind, tmp_path):
    torch.manual_seed(0)
    size = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 56, "image_size": 224}
    model = ViTModel(ViTConfig(**size, intermediate_size=48)) if kind == "dino" else Dinov2Model(Dinov2Config(**size))
    model.eval().save_pretrained(tmp_path / "tiny")
    extractor = extractors.load(f"{kind}:{tmp_path / 'tiny'}", tmp_path)
    assert extractor.name == f"{kind}:tiny"
    found = extractors.extract(extractor, pictures(2, 224, 224))
    pixels = torch.tensor(pictures(2, 224, 224)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (extractors.IMAGENET_MEAN, extractors.IMAGENET_DEVIATION)
    )
    with torch.no_grad():
        expected = model((pixels - mean) / deviation).last_hidden_state[:, 0]
    assert found.values == pytest.approx(expected.numpy(), abs=1e-4)
    with pytest.raises(DataError, match="no text tower"):
        extractors.extract_texts(extractor, ["a ball"])


def test_inception_loads_the_published_layout(tmp_path):
    state = {**Inception().state_dict(), "fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}
    torch.save(state, tmp_path / extractors.INCEPTION_FILE)
    extractor = extractors.load("inception", tmp_path)
    assert extractor.weights == hashlib.sha256((tmp_path / extractors.INCEPTION_FILE).read_bytes()).hexdigest()
    # these are not the weights of FID, so figures must not be called FID
    assert extractor.name == "inception:pt_inception-2015-12-05-6726825d"
    assert extractors.extract(extractor, pictures(1)).values.shape == (1, extractors.WIDTHS["inception"])
    state.pop("Mixed_5b.branch1x1.conv.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ArtifactError, match=r"Mixed_5b\.branch1x1\.conv\.weight"):
        extractors.load(f"inception:{tmp_path / 'other.pth'}", tmp_path)
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(ArtifactError, match=r"text\.pth: not the weights"):
        extractors.load(f"inception:{tmp_path / 'text.pth'}", tmp_path)


def test_missing_weights_say_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    with pytest.raises(ArtifactError) as missing:
        extractors.load("inception", tmp_path)
    assert extractors.INCEPTION_URL in str(missing.value)
    assert str(tmp_path / extractors.INCEPTION_FILE) in str(missing.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match="hf download somebody/some-clip --local-dir some-clip"):
        extractors.load("clip:somebody/some-clip", tmp_path)
    with pytest.raises(ArtifactError, match="no such folder"):
        extractors.load(f"dinov2:{tmp_path / 'none'}", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="no weights; looked for"):
        extractors.load(f"dinov2:{tmp_path / 'empty'}", tmp_path)


def test_other_names_and_models_are_refused(clip, tmp_path):
    with pytest.raises(ConfigError, match="Allowed: tabletop, inception, clip, dino, dinov2"):
        extractors.load("vgg", tmp_path)
    with pytest.raises(ConfigError, match="takes no path"):
        extractors.load("tabletop:here", tmp_path)
    (clip.parent / "broken").mkdir()
    (clip.parent / "broken" / "model.safetensors").write_bytes((clip / "model.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match="not a model for the extractor clip"):
        extractors.load(f"clip:{clip.parent / 'broken'}", tmp_path)


def test_features_are_kept_by_content(clip, tmp_path):
    extractor = extractors.load(f"clip:{clip}", tmp_path)
    first = extractors.extract(extractor, pictures(), tmp_path / "cache", clusters="aab", pairing="noise 0")
    again = extractors.extract(extractor, pictures()[::-1], tmp_path / "cache")
    assert np.array_equal(again.values, first.values[::-1])
    assert (first.clusters, first.pairing, first.fingerprint) == (("a", "a", "b"), "noise 0", extractor.fingerprint)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1


def test_the_fingerprint_follows_weights_and_recipe(clip, tmp_path):
    extractor = extractors.load(f"clip:{clip}", tmp_path)
    other = extractors.Extractor(extractor.name, extractor.weights, "squashed", extractor.pictures)
    assert other.fingerprint != extractor.fingerprint


@pytest.mark.parametrize("side", [16, 90])
def test_resizing_is_pillows_antialiased_bicubic_in_floating_point(side):
    picture = np.asarray(Image.fromarray(pictures(1, 6, 8)[0]).resize((56, 40), Image.Resampling.BICUBIC))
    channels = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3)]
    expected = np.stack([np.asarray(c.resize((side, side), Image.Resampling.BICUBIC)) for c in channels], -1)
    found = extractors.squashed(picture, side)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(found - expected.clip(0, 255)).max() < 0.1


def test_cropping_keeps_the_middle_and_the_shape():
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 255
    assert (extractors.cropped(picture, 20) == 1).all()
    assert extractors.cropped(picture, 10).shape == (1, 3, 10, 10)
    assert extractors.cropped(picture.transpose(1, 0, 2), 30).shape == (1, 3, 30, 30)


def test_what_is_no_picture_is_refused(clip, tmp_path):
    extractor = extractors.load(f"clip:{clip}", tmp_path)
    with pytest.raises(DataError, match="number 1 is float64"):
        extractors.extract(extractor, [pictures(1)[0], np.zeros((4, 4, 3))])
    with pytest.raises(DataError, match="no pictures"):
        extractors.extract(extractor, [])
    with pytest.raises(DataError, match="no prompts"):
        extractors.extract_texts(extractor, [])
