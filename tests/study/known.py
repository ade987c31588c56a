"""Rows of studies with a known truth, as the records of runs would give them."""

import json
from pathlib import Path

import numpy as np

from inlay.study.table import Row

POSITIONS = json.loads((Path(__file__).parent.parent / "oracles" / "statistics.json").read_text())["positions"]["data"]


def methods(seeds: int = 4, noise: float = 0.01, broken: bool = True) -> list[Row]:
    """Return four methods on two subjects: full and lora are alike, bitfit is worse, prefix fails on one subject."""
    generator = np.random.default_rng(3)
    truth = {"full": 0.55, "lora": 0.548, "bitfit": 0.47, "prefix": 0.52}
    spent = {"full": (900, 11_557_976), "lora": (500, 136_192), "bitfit": (300, 14_336), "prefix": (280, 25_088)}
    rows = []
    for number, (method, value) in enumerate(truth.items()):
        for task, shift in (("pip", 0.0), ("rex", 0.03)):
            for seed in range(seeds):
                cell = f"{number}{task}{seed}"
                head = (cell, {"method": method}, task, seed)
                if broken and method == "prefix" and task == "rex" and seed > 0:
                    rows.append(Row(*head, "failed" if seed < 3 else "missing", "the loss is not finite in step 31"))
                    continue
                likeness = value + shift + noise * generator.standard_normal()
                seconds, parameters = spent[method]
                rows.append(
                    Row(
                        *head,
                        "done",
                        metrics={
                            "likeness": likeness,
                            "kid": 0.4 - 0.5 * likeness + 0.02 * generator.standard_normal(),
                        },
                        costs={
                            "training_seconds": seconds * generator.uniform(0.9, 1.1),
                            "trainable_parameters": float(parameters),
                            "peak_bytes": 6e8 + 18.0 * parameters,
                            "result_bytes": 4.0 * parameters + 3000,
                        },
                    )
                )
    return rows


def positions(subjects: int = 3, seeds: int = 3, noise: float = 0.02) -> list[Row]:
    """Return the publication's twenty positions with noise around its figures, on subjects that differ."""
    generator = np.random.default_rng(4)
    rows = []
    for value, one, other in zip(POSITIONS["response"], POSITIONS["input"], POSITIONS["output"], strict=True):
        for subject in range(subjects):
            for seed in range(seeds):
                rows.append(
                    Row(
                        f"{one}.{other}.{subject}.{seed}",
                        {"input": one, "output": other},
                        f"subject {subject}",
                        seed,
                        "done",
                        metrics={"clip_i": value + 0.02 * subject + noise * generator.standard_normal()},
                        costs={"training_seconds": 20.0 + generator.uniform(), "trainable_parameters": 124_324.0},
                    )
                )
    return rows
