"""Pretraining without a base from the command line: classes of a folder, stopped by force, resumed, and drawn from."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

RUN = """
data: {{source: {pictures}, caption_dropout: 0.2}}
conditioning: class
path: cosine
denoiser: {{name: {denoiser}, sample_size: 16, {size}}}
objective: {{prediction: v_prediction, weighting: {{name: min_snr, gamma: 5}}}}
train: {{steps: 12, batch_size: 4, learning_rate: 1e-3, checkpoint_every: 4, ema: {{decay: 0.9}}}}
preview: {{pictures: 1, steps: 3, sampler: heun}}
"""
DENOISERS = {
    "unet": "block_out_channels: [8, 16], layers_per_block: 1, attention_at: [8], attention_head_dim: 8, "
    "norm_num_groups: 4",
    "vit": "patch: 4, depth: 2, width: 16, heads: 2, time: sinusoidal",
}


def inlay(*arguments: object) -> str:
    command = [str(Path(sys.executable).with_name("inlay")), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two folders, one a class: dark pictures and light ones."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            noise = random.integers(0, 50, (16, 16, 3)) + level
            Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("denoiser", DENOISERS)
def test_classes_without_a_base(denoiser: str, pictures: Path, tmp_path: Path):
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN.format(pictures=pictures, denoiser=denoiser, size=DENOISERS[denoiser]))
    plan = json.loads(inlay("plan", run_file, "--json"))
    said = inlay("pretrain", run_file, f"output={tmp_path / 'whole'}")
    assert "--class 0" in said
    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    assert record["status"] == "done"
    assert record["costs"]["trainable_parameters"] == plan["trainable_parameters"]
    inlay("sample", tmp_path / "whole", "--class", "light", "--pictures", 2, "--steps", 3, "--out", tmp_path / "drawn")
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3
    unknown = subprocess.run(
        [Path(sys.executable).with_name("inlay"), "sample", tmp_path / "whole", "--class", "red"],
        capture_output=True,
        text=True,
    )
    assert unknown.returncode != 0
    assert "dark" in unknown.stderr + unknown.stdout
    assert "light" in unknown.stderr + unknown.stdout


def test_a_killed_pretraining_goes_on_to_the_same_bits(pictures: Path, tmp_path: Path):
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN.format(pictures=pictures, denoiser="vit", size=DENOISERS["vit"]))
    inlay("pretrain", run_file, f"output={tmp_path / 'whole'}")
    command = [Path(sys.executable).with_name("inlay"), "pretrain", run_file, f"output={tmp_path / 'killed'}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not any((tmp_path / "killed" / "checkpoints").glob("step-*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    inlay("pretrain", run_file, f"output={tmp_path / 'killed'}")
    weights = [load_file(next((tmp_path / name / "pipeline").rglob("*.safetensors"))) for name in ("whole", "killed")]
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
