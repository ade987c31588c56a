import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.cli.main import main
from inlay.errors import ConfigError
from inlay.objective.path import Path as NoisePath
from inlay.run.analysis_pictures import draw_noise_difference
from inlay.run.config import RunConfig
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.run.noise_difference import analyze_noise_difference, conclusion, noise_difference, summary
from inlay.run.reporter import Silent

PROMPTS = ("a photo of sks dog", "a photo of dog")


class Reads(nn.Module):
    """A denoiser that adds the mean of the text states to what it sees, the more the further right."""

    def __init__(self, strength):
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength), requires_grad=False)
        self.dtype = torch.float32

    def forward(self, noisy, timesteps, states, return_dict):
        ramp = torch.arange(noisy.shape[-1], dtype=torch.float32)
        return (0.3 * noisy + self.strength * states.mean((1, 2))[:, None, None, None] * ramp,)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_difference_of_a_known_denoiser_is_what_it_should_be(tiny_base, prediction):
    base = load_base(BaseSettings(model=str(tiny_base), prediction=prediction))
    base.components["unet"] = Reads(2.0)
    clean = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = noise_difference(base, PROMPTS, clean, (100, 800), noises=3)
    assert found.maps.shape == (2, 3, 2, 8, 8)
    means = base.encode_text(PROMPTS).mean((1, 2))
    moved = 2 * (means[0] - means[1]).abs().item() * np.arange(8)
    # v = alpha noise - sigma clean, so a change of v by d is one of the implied noise by alpha d.
    path = NoisePath.from_alphas_cumprod(base.scheduler.alphas_cumprod)
    for place, timestep in enumerate((100, 800)):
        factor = 1.0 if prediction == "epsilon" else path.alpha(torch.tensor([timestep])).item()
        expected = np.broadcast_to(factor * moved, (2, 3, 8, 8))
        np.testing.assert_allclose(found.maps[:, :, place], expected, rtol=2e-3, atol=1e-6)


def test_noise_is_the_same_for_every_model_and_another_for_every_draw(tiny_base):
    clean = torch.zeros(1, 4, 8, 8)
    first, second = (
        noise_difference(load_base(BaseSettings(model=str(tiny_base))), PROMPTS, clean, (500,), 2) for _ in range(2)
    )
    assert np.array_equal(first.maps, second.maps)
    assert not np.array_equal(first.maps[:, 0], first.maps[:, 1])


def test_a_timestep_must_be_on_the_path(tiny_base):
    base = load_base(BaseSettings(model=str(tiny_base)))
    with pytest.raises(ConfigError, match=r"timesteps \[1000\]: must be from 0 to 999"):
        noise_difference(base, PROMPTS, torch.zeros(1, 4, 8, 8), (1000,), 1)


def test_the_summary_is_over_pictures():
    values = np.arange(5.0)[:, None, None] + np.array([-1.0, 1.0])[None, :, None] + np.zeros((5, 2, 3))
    found = summary(values)
    assert found["mean"] == 2
    # Student's t with 4 degrees of freedom: 2.776 * sqrt(2.5 / 5)
    assert found["interval"] == pytest.approx([2 - 1.963, 2 + 1.963], abs=1e-3)
    assert found["spread_over_noises"] == pytest.approx(2**0.5)
    assert found["by_timestep"] == [2, 2, 2]


@pytest.fixture
def tune(tiny_base, photos, tmp_path):
    def run(name, method, **data):
        config = {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a photo of sks dog", **data},
            "method": method,
            "train": {"steps": 2, "batch_size": 2, "learning_rate": 0.05, "trackers": []},
            "preview": {"pictures": 1, "steps": 1, "prompts": ["dog"]},
        }
        return execute(validate(RunConfig, config), tmp_path / name).directory

    return run


def test_methods_whose_effect_is_known(tune, tmp_path):
    nothing, deaf = tune("nothing", {"name": "lora", "rank": 1}), tune("deaf", {"name": "full"})
    # A LoRA of zeros is the base; a model whose attention to the text writes zeros cannot tell prompts apart.
    path = nothing / "pytorch_lora_weights.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in load_file(path).items()}, path, {"format": "pt"})
    (path,) = (deaf / "pipeline" / "unet").glob("*.safetensors")
    weights = load_file(path)
    silenced = {name: torch.zeros_like(value) for name, value in weights.items() if ".attn2.to_out." in name}
    assert silenced
    save_file({**weights, **silenced}, path, {"format": "pt"})
    learned = tune("learned", {"name": "lora", "rank": 4})
    measured = analyze_noise_difference([nothing, deaf, learned], Silent(), pictures=4, noises=2, timesteps=(200, 700))
    runs = measured.record["runs"]
    assert runs["nothing"]["prompts"] == ["a photo of sks dog", "a photo of dog"]
    assert runs["nothing"]["gain"]["mean"] == 0
    assert runs["nothing"]["mean"] == runs["nothing"]["base"]["mean"] > 0
    assert runs["deaf"]["mean"] == 0
    assert runs["deaf"]["gain"]["mean"] == -runs["deaf"]["base"]["mean"]
    assert runs["learned"]["gain"]["mean"] != 0
    said = conclusion(measured.record)[-1]
    assert said.startswith("no more than in the base")
    assert "nothing, deaf" in said
    json.dumps(measured.record, allow_nan=False)
    assert list(measured.maps) == ["base", "nothing", "deaf", "learned"]
    picture = draw_noise_difference(measured, tmp_path / "maps.png")
    with Image.open(picture) as shown:
        assert shown.width > 300


def test_the_prompt_without_the_identifier_is_found_or_asked_for(tune):
    with_prior = tune("prior", {"name": "bitfit"}, prior={"prompt": "the dog", "images": 2, "steps": 1})
    record = analyze_noise_difference([with_prior], Silent(), pictures=1, noises=1, timesteps=(500,)).record
    assert record["runs"]["prior"]["prompts"] == ["a photo of sks dog", "the dog"]
    plain = tune("plain", {"name": "bitfit"}, prompt="a red dog")
    with pytest.raises(ConfigError, match="which word of 'a red dog' is the identifier"):
        analyze_noise_difference([plain], Silent())
    record = analyze_noise_difference([plain], Silent(), None, "a dog", 1, 1, (500,)).record
    assert record["runs"]["plain"]["prompts"] == ["a red dog", "a dog"]


def test_on_the_command_line(tune, tmp_path, capsys):
    run = str(tune("lora", {"name": "lora", "rank": 1}))
    arguments = ["analyze", "noise-difference", run, "--pictures", "1", "--noises", "1", "--timesteps", "10,500"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "difference" in shown
    assert "look at" in shown
    saved = json.loads((tmp_path / "out" / "noise-difference.json").read_text())
    assert saved["timesteps"] == [10, 500]
    assert (tmp_path / "out" / "noise-difference.png").is_file()
    assert main([*arguments[:3], "--bins", "3"]) == 2
    assert "--bins is for `inlay analyze conflict` and `inlay analyze pareto`" in capsys.readouterr().err
