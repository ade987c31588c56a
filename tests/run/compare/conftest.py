"""Run directories as `inlay tune` leaves them, without the minutes that it takes: the same files, in the same form."""

import json

import numpy as np
import pytest
import yaml

from inlay.run.pictures import Block, Row, grid, save_picture

PROMPTS = ["a photo of a sks toy", "a toy"]
HARDWARE = {"processor": "x86_64", "cores": 2, "threads": 1, "memory_bytes": 2**34, "gpus": [], "platform": "Linux"}


def flat_picture(value):
    return np.full((16, 16, 3), value, np.uint8)


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes a run directory and returns it."""

    def build(name, method=None, steps=20, planned=20, seconds=0.5, held_out=None, **changes):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        status = changes.pop("status", "done")
        config = {
            "base": {"model": "tabletop"},
            "data": {"source": "toys", "prompt": PROMPTS[0], "resolution": None, "validation": 1},
            "objective": {"prediction": "auto"},
            "train": {"steps": planned, "learning_rate": None, "batch_size": 4},
            "preview": {"prompts": PROMPTS, "pictures": 2, "every": None, "steps": 25, "guidance": 4.0, "seed": 0},
            "seed": 0,
            "method": method or {"name": "lora", "rank": 8},
            "stack": [],
        }
        for key, value in changes.pop("config", {}).items():
            section, _, inner = key.partition("__")
            config[section] = {**config[section], inner: value} if inner else value
        (directory / "run.yaml").write_text(yaml.safe_dump(config))
        held_out = held_out if held_out is not None else [0.5 - 0.01 * k for k in range(4)]
        lines = []
        for step in range(1, steps + 1):
            entry = {"step": step, "loss": 1 / step, "learning_rate": 1e-4, "seconds": seconds * step}
            if step % 5 == 0 and step // 5 <= len(held_out):
                entry["validation_loss"] = held_out[step // 5 - 1]
            lines.append(json.dumps(entry) + "\n")
        (directory / "trace.jsonl").write_text("".join(lines))
        if status is not None:
            record = {
                "status": status,
                "kind": "tune",
                "config": config,
                "config_hash": "c" * 64,
                "command": ["inlay", "tune", "x.yaml"],
                "data": {"hash": "d" * 64, "pictures": 5, "held_out": 1, "resolution": 16},
                "base": {"name": "tabletop", "hash": "b" * 64},
                "hardware": HARDWARE,
                "versions": {"inlay": "0.1.0"},
                "costs": {
                    "trainable_parameters": 1000,
                    "denoiser_parameters": 100_000,
                    "result_bytes": 4096 if status == "done" else None,
                    "peak_bytes": 2**20,
                    "seconds_per_step": seconds,
                    "training_seconds": seconds * steps,
                },
                "metrics": {"smoothed_loss": 0.1, "validation_loss": held_out[-1] if held_out else None},
                "missing": {},
                "files": [],
            }
            for key, value in changes.pop("record", {}).items():
                section, _, inner = key.partition("__")
                record[section] = {**record[section], inner: value} if inner else value
            (directory / "record.json").write_text(json.dumps(record))
        if status == "done":
            rows = [Row("pictures it was trained on", [Block("1 of 5", [flat_picture(9)])])]
            for prompt in config["preview"]["prompts"]:
                before = Block("before", [flat_picture(10), flat_picture(20)])
                rows.append(Row(prompt, [before, Block("after", [flat_picture(len(name)), flat_picture(40)])]))
            save_picture(grid(rows), directory / "samples.png")
        assert not changes, f"unused: {changes}"
        return directory

    return build


@pytest.fixture
def measured():
    """Return a function that gives the entries of a record for one metric, as `inlay evaluate` writes them."""

    def build(
        value, low=None, high=None, n=40, extractor="clip", name="clip_i", better="higher", signs=(-1, 1, -1, 1), **more
    ):
        # Left-out values so far from the figure that its own jackknife gives this interval: 3.182 is Student's t.
        moves = 0.0 if low is None else (high - low) / 2 / (3.182 * 3**0.5)
        left_out = [value + moves * sign for sign in signs]
        detail = {
            "value": value,
            "interval": None if low is None else [low, high],
            "n": n,
            "references": 5,
            "extractor": extractor,
            "fingerprint": extractor,
            "better": better,
            "label": "CLIP-I",
            "note": "",
            "jackknife": None if low is None else {"value": value, "left_out": left_out, "sizes": [n // 4] * 4},
            "level": None if low is None else 0.95,
            "reference": "r",
            "pairing": "p",
            **more,
        }
        return {f"metrics__{name}": value, "metric_details": {name: detail}}

    return build
