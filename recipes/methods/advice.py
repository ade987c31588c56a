"""Makes src/inlay/study/advice.json, by which `inlay advise` advises, from the gallery and runs with several seeds.

inlay study run recipes/methods/seeds.yaml -o build/seeds
python recipes/methods/advice.py build/seeds
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path

import yaml
from gallery import RESULTS, TASKS, cases

from inlay.study.advice_records import SHIPPED, of_study

STUDY_TASK = {"subject": "subject", "domain": "style"}
"""The gallery's tasks, and what the study of seeds and `inlay advise` call them."""
KEPT = ("training_seconds", "seconds_per_step", "peak_bytes", "result_bytes", "trainable_parameters")


def main() -> None:
    """Write the file."""
    seeds = Path(sys.argv[1])
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    methods = {case: yaml.safe_load(text.partition("=")[2]) for case, text in cases().items()}
    tasks = {}
    for task, name in STUDY_TASK.items():
        recipe = yaml.safe_load(TASKS[task].recipe.read_text(encoding="utf-8"))
        repeated = of_study(seeds, name, None)
        scatter = math.sqrt(statistics.mean((one.scatter or 0.0) ** 2 for one in repeated.candidates))
        settings = []
        for case, scores in results.items():
            one = scores[task]
            settings.append(
                {
                    "name": case,
                    "method": methods[case],
                    "learning_rate": one["learning_rate"],
                    "quality": round(one["after"], 4),
                    "half_width": round(one["half_width"], 4),
                    "costs": {key: one[key] for key in KEPT},
                }
            )
        data = recipe["data"]
        tasks[name] = {"data": data, "scatter": round(scatter, 5), "settings": settings}
    runs = sum(one.runs for one in repeated.candidates)
    found = {
        "covers": (
            f"From {len(results)} settings of inlay's gallery, one run each, on one toy and one style of drawing: 200 "
            "steps of four pictures on the embedded base, timed on one thread of a shared two-core machine. "
            "Likeness is the mean cosine between features of drawn and real pictures. How much single runs differ is "
            f"known from three methods with three seeds each ({runs} runs a task). Other subjects, bases, lengths may "
            "rank otherwise: `inlay study` finds out on yours, `inlay advise --study` advises by it."
        ),
        "base": "tabletop",
        "steps": 200,
        "batch_size": 4,
        "metric": "likeness",
        "tasks": tasks,
    }
    text = json.dumps(found, indent=1)
    SHIPPED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
