"""What making the embedded base rests on: its pictures, the clock, the judge, and what the card says of it."""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from inlay.data.tabletop import World
from inlay.metrics import judge

ROOT = Path(__file__).parents[2]


def test_pictures_are_those_of_the_world_and_are_drawn_once(recipe_folder, monkeypatch, tmp_path):
    import pictures

    monkeypatch.setattr(pictures, "BUILD", tmp_path)
    monkeypatch.setattr("inlay.data.farm.TOGETHER", 3)
    monkeypatch.setattr(pictures, "cores", lambda: 2)
    images, captions, scenes = pictures.pictures("test", 5)
    expected = [World("test")[index] for index in range(5)]
    assert np.array_equal(images, [one.image for one in expected])
    assert captions == [one.caption for one in expected]
    assert scenes == [one.scene for one in expected]
    monkeypatch.setattr(pictures, "draw", None)
    assert np.array_equal(pictures.pictures("test", 5)[0], images)


def test_training_ends_with_the_clock_and_the_rate_falls_with_it(recipe_folder, monkeypatch, tmp_path):
    import training

    now = [100.0]
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    args = argparse.Namespace(steps=1000, seconds=10.0, batch=4)
    loop = training.Training(args, optimizer, purpose="test", count=12, warmup=1, trace=tmp_path / "trace.json")
    rates = []
    for _ in loop:
        now[0] += 2.5
        loop.learn(optimizer.param_groups[0]["params"][0].sum())
        rates.append(optimizer.param_groups[0]["lr"])
    # A quarter of the time each: 0.01 + 0.99 * (1 + cos(pi * share)) / 2.
    assert rates == pytest.approx([0.855018, 0.505, 0.154982, 0.01], abs=1e-6)


def test_trace_sums_tensors_as_it_does_numbers(recipe_folder, tmp_path):
    import training

    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    traces = [training.Trace(tmp_path / f"{name}.json", 7) for name in ("tensors", "numbers")]
    for step, value in enumerate(values):
        traces[0].add(step, loss=value)
        traces[1].add(step, loss=value.item())
    assert traces[0].rows[0]["loss"] == traces[1].rows[0]["loss"]


def test_the_time_left_is_the_clocks_where_that_ends_the_training(recipe_folder, monkeypatch, tmp_path, capsys):
    import training

    now = [0.0]
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    traces = [training.Trace(tmp_path / "trace.json", 100, every=1, limit=limit) for limit in (120.0, math.inf)]
    now[0] = 60.0
    for trace in traces:
        trace.add(9, loss=1.0)
    by_clock, by_steps = capsys.readouterr().out.splitlines()
    assert by_clock.endswith("1.0 min left")
    assert by_steps.endswith("9.0 min left")


def test_quality_takes_the_shipped_judge_where_none_was_trained(recipe_folder, monkeypatch, tmp_path):
    import classifier
    import quality

    monkeypatch.setattr(quality, "BUILD", tmp_path)
    assert quality.judge_folder() == judge.folder()
    one = classifier.load(quality.judge_folder())
    picture = World("test")[next(k for k in range(50) if len(World("test").describe(k)[0].things) == 1)].image
    named = {key: classifier.ATTRIBUTES[key][value[0]] for key, value in one.name(picture[None]).items()}
    assert named == {key: value[0] for key, value in judge.name_attributes([picture]).items()}
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "model.safetensors").touch()
    assert quality.judge_folder() == tmp_path / "classifier"


def test_the_card_is_what_its_script_writes(recipe_folder, monkeypatch):
    import card

    monkeypatch.chdir(ROOT)
    assert card.card(card.RESULTS) == (card.BASE / "MODEL_CARD.md").read_text()


def test_the_card_names_the_gpu_that_made_the_base(recipe_folder, tmp_path):
    import card

    for path in (ROOT / card.RESULTS).glob("*.json"):
        found = json.loads(path.read_text())
        (tmp_path / path.name).write_text(json.dumps(found | {"device": "Some GPU"}))
    text = card.card(tmp_path)
    assert "Cost on one Some GPU: CLIP" in text
    assert "recipes/tabletop/gpu.sh" in text
    assert "two" not in text.partition("Cost on")[2].partition("## Use")[0].replace("two objects", "")


def test_the_card_says_which_aims_are_missed_and_which_nobody_could_reach(recipe_folder):
    import card

    quality = {
        "samples": {"class_and_colour": {"value": 0.85}},
        "retrieval": {
            "image_to_text": 0.8,
            "text_to_image": 0.7,
            "at_most": {"image_to_text": 0.86, "text_to_image": 0.96},
        },
    }
    assert card.shortfalls(quality, "one GPU") == [
        "- Retrieval from picture to text is right in 80.0 % of the cases; the aim is 90 %, which no reader could "
        "reach (see above).",
        "- Retrieval from text to picture is right in 70.0 % of the cases; the aim is 90 %.",
    ]
    quality["samples"]["class_and_colour"]["value"] = 0.5
    (first, *_) = card.shortfalls(quality, card.SHARED)
    assert first.startswith(
        "- Class and colour are both right in 50.0 % of the prompts; the aim is 80 %. What limits it"
    )


def test_the_denoiser_is_accounted_for_from_its_record(recipe_folder):
    import denoiser

    record = {
        "config": {
            "train": {
                "steps": None,
                "batch_size": 1024,
                "learning_rate": 0.0015,
                "precision": "bf16",
                "ema": {"decay": 0.999},
            },
            "data": {"mask": {"outside": 0.05}},
            "objective": {"prediction": "v_prediction", "timesteps": {"shift": 2.0}},
        },
        "costs": {
            "denoiser_parameters": 11_600_000,
            "steps": 3000,
            "images_seen": 3_072_000,
            "training_seconds": 240.0,
        },
        "metrics": {"validation_loss": 0.3},
    }
    found = denoiser.account(record)
    assert "U-Net of 11.6 M parameters" in found["training"]
    assert "3,000 steps at batch 1024 = 3,072,000 pictures seen, AdamW 0.0015" in found["training"]
    assert "v-prediction, unweighted but for masks (0.05 outside things, 1 on them), timesteps" in found["training"]
    record["config"]["data"]["mask"] = None
    assert "v-prediction, unweighted, timesteps" in denoiser.account(record)["training"]
    assert found["training"].endswith("ended by the clock; loss on held-out pictures 0.300.")
    assert found["cost"] == "denoiser 4 min (about 12,800 pictures a second)"
    finish = {
        "config": {"data": {"mask": {"outside": 0.5}}, "train": {"learning_rate": 4e-4}},
        "costs": {"steps": 100, "images_seen": 12_800, "training_seconds": 120.0},
    }
    both = denoiser.account(record, finish)
    assert both["training"].endswith(
        "Then `finish.yaml`: 100 steps = 12,800 pictures with 0.5 outside things and all timesteps alike, from 0.0004."
    )
    assert both["cost"] == found["cost"] + " and 2 min to finish"
    at_500 = {"class": {"500": 0.61}, "colour": {"500": 0.7}}
    classifier = {
        "parameters": 1_040_000,
        "steps": 50,
        "batch": 128,
        "seconds": 180,
        "accuracy_by_timestep": at_500,
    }
    lesson = {"steps": 10, "batch": 64, "images_seen": 640, "learning_rate": 4e-4, "seconds": 600}
    lesson |= {"excess": 1.0, "perceptual": 0.5}
    taught = denoiser.account(record, finish, (classifier, [lesson]))
    assert taught["training"].startswith(both["training"])
    assert "10 steps at batch 64 = 640 pictures from 0.0004, with two more losses" in taught["training"]
    assert "names the class of 61 % and the colour of 70 % at t = 500" in taught["training"]
    assert "1 times what it errs more about class and colour, 0.5 times how much" in taught["training"]
    assert taught["cost"] == both["cost"] + ", classifier of latents 3 min, learning from it 10 min"
    again = lesson | {"steps": 20, "images_seen": 1280, "learning_rate": 1e-4, "excess": 0.5, "seconds": 1200}
    longer = denoiser.account(record, finish, (classifier, [lesson, again]))
    assert "from 0.0004 and again 20 steps at batch 64 = 1,280 pictures from 0.0001, with two" in longer["training"]
    assert "1 then 0.5 times what it errs more about class and colour, 0.5 times how much" in longer["training"]
    assert longer["cost"].endswith("learning from it 10 + 20 min")


@pytest.mark.slow
def test_one_command_makes_a_base_from_nothing(tmp_path):
    for name in ("src", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    base = tmp_path / "src" / "inlay" / "base" / "tabletop"
    (base / "model_index.json").unlink()
    for part in base.glob("*/"):
        shutil.rmtree(part)
    environment = {
        **os.environ,
        "MINIATURE": "1",
        "PYTHONPATH": str(tmp_path / "src"),
        "INLAY_CACHE": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", tmp_path / "recipes" / "tabletop" / "build.sh"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    picture = pipeline("a red ball", num_inference_steps=1, output_type="np", height=64, width=64).images[0]
    assert picture.shape == (64, 64, 3)
    trained = json.loads((base / "unet" / "config.json").read_text())
    assert trained["block_out_channels"] == [64, 128, 160]
    found = json.loads((tmp_path / "recipes" / "tabletop" / "results" / "denoiser.json").read_text())
    assert "4 steps at batch 16 = 64 pictures seen" in found["training"]
    assert "Then `finish.yaml`: 4 steps" in found["training"]
    assert "Then `teach.py`: 4 steps at batch 64 = 256 pictures from 0.0005 and again 4 steps" in found["training"]
    assert found["training"].count("and again 4 steps at batch 64 = 256 pictures from 0.0002") == 2
    assert "4 steps at batch 16" in (base / "MODEL_CARD.md").read_text()


def test_the_script_for_gpus_is_sound_and_asks_for_options_that_exist(recipe_folder):
    script = ROOT / "recipes" / "tabletop" / "gpu.sh"
    subprocess.run(["bash", "-n", script], check=True)
    lines = script.read_text().replace("\\\n", " ").splitlines()
    calls = [line for line in lines if "recipes/tabletop/" in line and ".py" in line]
    assert len(calls) >= 9
    for line in calls:
        name, _, rest = line.partition("recipes/tabletop/")[2].partition(".py")
        source = (ROOT / "recipes" / "tabletop" / f"{name}.py").read_text()
        if "add_training(parser" in source:
            source += (ROOT / "recipes" / "tabletop" / "training.py").read_text()
        for option in (word for word in rest.split() if word.startswith("--")):
            assert f'"{option}"' in source, (name, option)
