"""On the embedded base and a subject of its world: 40 times too many steps are flagged, a healthy run is not."""

import pytest

from inlay.metrics.measure import difference
from inlay.run.config import RunConfig
from inlay.run.evaluation.figures import restored
from inlay.run.job import execute
from inlay.run.load import validate

HEALTHY = 50


def trained(steps, directory):
    config = validate(
        RunConfig,
        {
            "base": "tabletop",
            "data": {"source": "tabletop:subject/pip", "prompt": "a photo of a sks toy"},
            "method": {"name": "lora", "rank": 8},
            "train": {"steps": steps, "learning_rate": 1e-3, "checkpoint_every": None, "trackers": []},
            "preview": {"pictures": 1, "steps": 2},
            "evaluate": {"pictures": 2, "steps": 12, "guidance": 4, "copies": 0},
        },
    )
    return execute(config, directory).record


@pytest.mark.slow
def test_a_memorising_run_neglects_its_prompts_and_a_healthy_one_has_no_symptom(tmp_path):
    healthy, memorising = (trained(steps, tmp_path / str(steps)) for steps in (HEALTHY, 40 * HEALTHY))
    present = [
        {symptom["name"] for symptom in record["symptoms"] if symptom["present"]} for record in (healthy, memorising)
    ]
    assert present[0] == set()
    assert "prompt neglect" in present[1]
    figures = [restored(record["metric_details"]["clip_t"]) for record in (memorising, healthy)]
    change = difference(*figures)
    assert change.paired
    assert change.clear
    assert change.value < 0
