"""The section `evaluate`: what it refuses before anything is loaded, and what it leaves alone."""

import pytest

from inlay.errors import ConfigError
from inlay.run.config import RunConfig
from inlay.run.evaluation.early import check_evaluation
from inlay.run.evaluation.settings import EvaluateSettings
from inlay.run.evaluation.table import LOSSES, METRICS, SYMPTOMS, better
from inlay.run.load import validate


def run(evaluate, base="tabletop", **data):
    section = {"source": "tabletop:subject/pip", "prompt": "a photo of a sks toy", **data}
    return validate(
        RunConfig, {"base": base, "data": section, "method": "lora", "train": {"steps": 4}, "evaluate": evaluate}
    )


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"metrics": ["fid"]}, r"no metric fid; allowed: kid, cmmd"),
        ({"keep_best": "kid"}, "every=STEPS"),
        ({"keep_best": "loss", "every": 1}, "not a metric with a better side"),
        ({"keep_best": "kid", "every": 1, "metrics": ["clip_t"]}, "not among metrics"),
        ({"prompts": []}, "prompts"),
        ({"evry": 1}, "every"),
    ],
)
def test_mistakes_in_the_section(evaluate, message):
    with pytest.raises(ConfigError, match=message):
        run(evaluate)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: run({}, base="some/where"), "which network looks"),
        (lambda: run({"features": ["vgg"]}), "no extractor 'vgg'; allowed: tabletop, inception"),
        (lambda: run({"metrics": ["dino_i"]}), "dino_i is defined on dino and dinov2"),
        (lambda: run({"keep_best": "validation_loss", "every": 1}), "data.validation"),
        (lambda: run({"keep_best": "dino_i", "every": 1}), "not measured here"),
        (lambda: run({"keep_best": "diversity", "every": 1, "pictures": 1}), "several pictures"),
        (lambda: run({"prompts": "dreambooth"}, prompt="a photo of a toy"), "dreambooth"),
    ],
)
def test_what_does_not_fit_the_run(config, message):
    with pytest.raises(ConfigError, match=message):
        check_evaluation(config())


def test_measuring_is_no_part_of_a_runs_identity_but_choosing_is():
    plain, measured = run(None), run({"every": 2, "pictures": 1})
    assert plain.identity() == measured.identity()
    assert plain.content_hash() != measured.content_hash()
    kept = run({"every": 2, "keep_best": "kid"})
    assert kept.identity() != plain.identity()
    assert kept.identity() != run({"every": 1, "keep_best": "kid"}).identity()


def test_which_figures_a_section_measures():
    def measured(evaluate):
        figures = (
            "kid@dinov2:large",
            "frechet",
            "clip_i",
            "accuracy_colour",
            "copied_share",
            "leave_one_out_loss",
            "loss",
        )
        return [name for name in figures if EvaluateSettings.model_validate(evaluate).measures(name)]

    assert measured({}) == ["kid@dinov2:large", "clip_i", "accuracy_colour", "copied_share"]
    assert measured({"metrics": ["accuracy"], "symptoms": False}) == ["accuracy_colour"]
    assert measured({"metrics": ["kid"], "leave_one_out": True}) == [
        "kid@dinov2:large",
        "copied_share",
        "leave_one_out_loss",
    ]


def test_every_figure_has_a_better_side():
    assert all(better(name) in ("higher", "lower") for name in (*METRICS, *SYMPTOMS, *LOSSES))
    assert better("kid@dinov2:large") == "lower"
    assert better("accuracy_colour") == "higher"
    assert better("loss") is None
