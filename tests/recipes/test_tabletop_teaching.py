"""The classifier of noised latents, and how the denoiser learns from it."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn import functional

from inlay.data.tabletop import World


@pytest.fixture
def few_pictures(recipe_folder, monkeypatch, tmp_path):
    """A build folder of its own and the name of a script, to be run on 96 pictures."""
    import pictures

    monkeypatch.setattr(pictures, "BUILD", tmp_path)
    monkeypatch.setattr(pictures, "cores", lambda: 1)

    def run(name, *options):
        script = __import__(name)
        for setting, value in (("BUILD", tmp_path), ("TEST", 32)):
            if hasattr(script, setting):
                monkeypatch.setattr(script, setting, value)
        monkeypatch.setattr(
            "sys.argv", [name, "--device", "cpu", "--images", "96", "--batch", "16", *map(str, options)]
        )
        script.main()

    return run


def test_a_linear_code_is_decoded_exactly(recipe_folder):
    from noisy_classifier import NoisyClassifier

    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(24, 192, generator=generator)
    latents = torch.randn(40, 24, 8, 8, generator=generator)
    patches = latents.permute(0, 2, 3, 1).flatten(1, 2) @ axes + 0.3
    images = functional.fold(patches.transpose(1, 2), 64, 8, stride=8)
    model = NoisyClassifier(24)
    model.fit_decoding(latents, images)
    assert torch.allclose(model.decode(latents) + 0.3, images, atol=1e-3)


def test_latents_of_the_base_are_decoded_to_their_pictures(recipe_folder):
    from noisy_classifier import NoisyClassifier, encode
    from pictures import pixels

    from inlay.base.locate import EMBEDDED

    images = np.stack([World("test")[k].image for k in range(64)])
    latents = encode(AutoencoderKL.from_pretrained(EMBEDDED / "vae", dtype=torch.float32), images).float()
    model = NoisyClassifier(24)
    model.fit_decoding(latents[:48], pixels(images[:48]))
    shown, real = model.decode(latents[48:]), pixels(images[48:])
    lost = (shown - shown.mean() - real + real.mean()).square().mean() / real.var()
    assert lost < 0.1


def test_noise_has_the_level_that_is_told_to_the_classifier(recipe_folder):
    from noisy_classifier import log_snr, noise_path, shown

    from inlay.base.locate import EMBEDDED

    path, t = noise_path(EMBEDDED), torch.tensor([0, 500, 999])
    told = {}

    def classifier(noisy, level):
        told.update(noisy=noisy, level=level)
        return {}, []

    shown(classifier, torch.ones(3, 1, 1, 1), torch.zeros(3, 1, 1, 1), t, path)
    signal = told["noisy"].flatten() ** 2
    assert torch.allclose(told["level"], torch.log(signal / (1 - signal)), atol=1e-4)
    assert torch.equal(told["level"], log_snr(path, t))
    assert told["level"].diff().max() < -1


def test_only_what_a_caption_names_of_one_thing_is_taught(recipe_folder):
    from classifier import ATTRIBUTES
    from teach import UNKNOWN, named

    world = World("train")
    seen = {"both": 0, "class": 0, "nothing": 0}
    for index in range(400):
        scene, caption = world.describe(index)
        kind, colour = named(scene, caption)
        if len(scene.things) == 2:
            assert (kind, colour) == (UNKNOWN, UNKNOWN)
            seen["nothing"] += 1
            continue
        if kind != UNKNOWN:
            assert ATTRIBUTES["class"][kind] == scene.things[0].kind
            assert scene.things[0].kind in caption.split()
        if colour != UNKNOWN:
            assert ATTRIBUTES["colour"][colour] == scene.things[0].colour
            assert f"{scene.things[0].colour} " in caption.partition(scene.things[0].kind)[0]
            seen["both"] += 1
        else:
            seen["class"] += 1
    assert min(seen.values()) > 20


def test_only_what_is_recognised_worse_than_the_real_picture_is_excess(recipe_folder):
    from teach import UNKNOWN, compare

    real = {"class": torch.tensor([[2.0, 0.0]] * 3), "colour": torch.zeros(3, 2)}
    shown = {"class": torch.tensor([[9.0, 0.0], [0.0, 0.0], [0.0, 9.0]]), "colour": torch.zeros(3, 2)}
    seen = [torch.ones(3, 4, 2, 2)]
    wanted = torch.tensor([[0, UNKNOWN], [0, 1], [UNKNOWN, UNKNOWN]])
    excess, perceptual = compare((shown, seen), (real, seen), wanted)
    # The first is clearer than real, the last has no name; the second: ln 2 - ln(1 + exp(-2)).
    assert excess.item() == pytest.approx(0.693147 - 0.126928, abs=1e-5)
    assert perceptual == 0


def test_hidden_values_are_compared_in_units_of_the_real_ones(recipe_folder):
    from teach import UNKNOWN, compare

    logits = {"class": torch.zeros(2, 2), "colour": torch.zeros(2, 2)}
    real = [torch.full((2, 4, 2, 2), 2.0), torch.full((2, 8, 1, 1), 5.0)]
    shown = [torch.full((2, 4, 2, 2), 3.0), torch.full((2, 8, 1, 1), 5.0)]
    excess, perceptual = compare((logits, shown), (logits, real), torch.full((2, 2), UNKNOWN))
    assert excess == 0
    assert perceptual.item() == pytest.approx(2 * 1 / 4)


def test_a_classifier_is_trained_and_the_denoiser_learns_from_it(few_pictures, tmp_path):
    from inlay.base.locate import EMBEDDED

    few_pictures("noisy_classifier", "--base", EMBEDDED, "--steps", 2, "--results", tmp_path / "classifier.json")
    found = json.loads((tmp_path / "classifier.json").read_text())
    assert found["steps"] == 2
    assert {len(found["accuracy_by_timestep"][name]) for name in ("class", "colour")} == {8}
    before = UNet2DConditionModel.from_pretrained(EMBEDDED / "unet", dtype=torch.float32).state_dict()
    options = ("--base", EMBEDDED, "--steps", 3, "--classifier", tmp_path / "noisy-classifier", "--rate", 1e-3)
    weights = {}
    for weight in (0, 1):
        few_pictures("teach", *options, "--excess", weight, "--out", tmp_path / "taught")
        taught = UNet2DConditionModel.from_pretrained(tmp_path / "taught" / "pipeline" / "unet", dtype=torch.float32)
        weights[weight] = taught.state_dict()
        assert json.loads((tmp_path / "taught" / "summary.json").read_text())["images_seen"] == 48
    for changed in weights.values():
        assert any(not torch.equal(changed[name], value) for name, value in before.items())
    assert any(not torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_a_stopped_teaching_goes_on_to_the_same_bits(few_pictures, tmp_path, monkeypatch):
    import teach
    import training

    from inlay.base.locate import EMBEDDED

    few_pictures("noisy_classifier", "--base", EMBEDDED, "--steps", 1, "--results", tmp_path / "classifier.json")
    monkeypatch.setattr(teach, "EVERY", 2)
    options = ("--base", EMBEDDED, "--steps", 5, "--classifier", tmp_path / "noisy-classifier", "--rate", 1e-3)
    few_pictures("teach", *options, "--out", tmp_path / "whole")
    whole = json.loads((tmp_path / "teach-trace.json").read_text())["rows"]

    def stopped(*args, **kwargs):
        for step, chosen in enumerate(batches(*args, **kwargs)):
            if step == 3:
                raise KeyboardInterrupt
            yield chosen

    batches = training.batches
    monkeypatch.setattr(training, "batches", stopped)
    with pytest.raises(KeyboardInterrupt):
        few_pictures("teach", *options, "--out", tmp_path / "parts")
    assert not (tmp_path / "parts" / "pipeline").exists()
    monkeypatch.setattr(training, "batches", batches)
    with pytest.raises(SystemExit, match=r"step-00000002 is of a training with rate 0\.001, not 0\.002"):
        few_pictures("teach", *options, "--rate", 2e-3, "--out", tmp_path / "parts")
    few_pictures("teach", *options, "--out", tmp_path / "parts")
    weights = [
        (tmp_path / name / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
        for name in ("whole", "parts")
    ]
    assert weights[0] == weights[1]
    again = json.loads((tmp_path / "teach-trace.json").read_text())["rows"]
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in whole]
    assert json.loads((tmp_path / "parts" / "summary.json").read_text())["steps"] == 5
    assert not (tmp_path / "parts" / "checkpoints").exists()
