"""The trainings of the study: which settings, in which order, and where their records are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "min-snr" / "miniature" / "digits-unet.yaml"
RECORDS = HERE / "records"

TARGETS = {"sample": "x0", "epsilon": "eps", "v_prediction": "v"}
"""Prediction targets, and what they are called in tables."""
WEIGHTINGS = {"constant": {}, "snr": {}, "max_snr": {"gamma": 1}, "min_snr": {"gamma": 5}}
"""Weightings of figure 5 of arXiv 2303.09556, by the weight on the error of the clean picture."""
GAMMAS = (1, 10, 20)
"""Of min-SNR, beside 5: table 2."""
STEPS = 400
WARMUP = 50
BATCH = 48
MEASURED = (100, 200, 400)
"""Steps after which pictures are drawn."""
BINS = 10
"""Equal parts of the timesteps for which losses are measured."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    target: str
    weighting: str
    gamma: int | None
    seed: int

    @property
    def setting(self) -> str:
        """Return the training's name without its seed."""
        return f"{TARGETS[self.target]}-{self.weighting}" + (f"-{self.gamma}" if self.weighting == "min_snr" else "")

    @property
    def name(self) -> str:
        """Return the name of the training's record and run."""
        return f"{self.setting}-seed{self.seed}"

    @property
    def record(self) -> Path:
        """Return where the record is."""
        return RECORDS / f"{self.name}.json"

    def overrides(self) -> list[str]:
        """Return what replaces settings of the recipe."""
        weighting = {"name": self.weighting} | ({} if self.gamma is None else {"gamma": self.gamma})
        return [
            f"objective.prediction={self.target}",
            f"objective.weighting={json.dumps(weighting)}",
            f"seed={self.seed}",
            f"train.steps={STEPS}",
            f"train.schedule.warmup_steps={WARMUP}",
            f"train.batch_size={BATCH}",
            "train.ema.snapshots=4",
            "train.trackers=[]",
        ]


def cells(seeds: int) -> list[Cell]:
    """Return all trainings, seed by seed, so that a study that was stopped has whole seeds."""
    found = []
    for seed in range(seeds):
        found += [
            Cell(target, weighting, WEIGHTINGS[weighting].get("gamma"), seed)
            for target in ("epsilon", "sample", "v_prediction")  # the analyses wait for the plain eps model
            for weighting in ("snr", "min_snr", "constant", "max_snr")
        ]
        found += [Cell(target, "min_snr", gamma, seed) for target in ("sample", "epsilon") for gamma in GAMMAS]
    return found


def read_records() -> list[dict[str, Any]]:
    """Return the records that there are."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDS.glob("*-seed*.json"))]
