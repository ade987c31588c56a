import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from inlay.errors import ConfigError
from inlay.objective.path import Path, rescale_zero_terminal_snr, scaled_linear_alphas_cumprod
from inlay.objective.settings import Objective
from inlay.objective.timesteps import LogitNormal, Uniform
from inlay.objective.weighting import MinSNR, Plain, SoftMinSNR

SD = Path.from_alphas_cumprod(scaled_linear_alphas_cumprod())
ZERO = Path.from_alphas_cumprod(rescale_zero_terminal_snr(scaled_linear_alphas_cumprod()))


def test_defaults_are_the_bases_own_loss():
    objective = Objective()
    assert (objective.prediction, objective.weighting, objective.timesteps) == ("auto", Plain(), Uniform())
    weights = objective.resolved("epsilon").weights(SD, torch.tensor([0, 500, 999]))
    assert weights.tolist() == [1.0, 1.0, 1.0]


def test_a_section_is_read_by_name_and_is_hashable():
    section = {
        "prediction": "v_prediction",
        "weighting": {"name": "min_snr", "gamma": 3},
        "timesteps": {"name": "logit_normal", "mean": 0.5, "stratified": True},
    }
    objective = Objective.model_validate(section)
    assert objective.weighting == MinSNR(gamma=3)
    assert objective.timesteps == LogitNormal(mean=0.5, stratified=True)
    assert hash(objective) == hash(Objective.model_validate(objective.model_dump()))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"weighting": {"name": "min-snr"}}, "'min_snr'"),
        ({"weighting": {"name": "plain", "gamma": 5}}, "Extra inputs"),
        ({"weighting": {"name": "min_snr", "gamma": 0}}, "greater than 0"),
        ({"timesteps": {"name": "mode", "scale": 2}}, "less than or equal"),
        ({"prediction": "x0"}, "'sample'"),
        ({"weight_floor": 0.1}, "does nothing with the plain weighting"),
        (
            {"weight_floor": 0.1, "weighting": {"name": "ugd"}},
            "known beforehand; those of ugd are found while training",
        ),
        (
            {"timesteps": {"name": "loss_second_moment"}, "weighting": {"name": "uncertainty"}},
            "losses whose weights stay; those of uncertainty change while training",
        ),
        ({"weighting": {"name": "frank_wolfe", "bins": 1}}, "greater than or equal to 2"),
    ],
)
def test_wrong_values_are_refused(section, message):
    with pytest.raises(ValidationError, match=message):
        Objective.model_validate(section)


@pytest.mark.parametrize("base", ["epsilon", "v_prediction", "sample", "flow"])
def test_auto_follows_the_base_and_an_explicit_prediction_stays(base):
    assert Objective().resolved(base).prediction == base
    assert Objective(prediction="sample").resolved(base).prediction == "sample"


def test_a_base_that_predicts_something_else_is_refused():
    with pytest.raises(ConfigError, match=r"predicts 'score'.*allowed: epsilon, v_prediction, sample, flow"):
        Objective().resolved("score")


def test_weights_need_a_resolved_prediction():
    with pytest.raises(ValueError, match="resolve the objective"):
        Objective().weight_table(SD)


def test_weights_are_the_tables_rows():
    objective = Objective(prediction="v_prediction", weighting=SoftMinSNR())
    t = torch.tensor([7, 7, 400])
    assert torch.equal(objective.weights(SD, t), objective.weight_table(SD)[t])
    assert objective.weights(SD, t)[0] != objective.weights(SD, t)[2]


def test_the_floor_lifts_only_what_lies_below_it():
    without = Objective(prediction="v_prediction", weighting=MinSNR()).weight_table(ZERO)
    floored = Objective(prediction="v_prediction", weighting=MinSNR(), weight_floor=0.1).weight_table(ZERO)
    assert float(without[-1]) == 0
    assert float(floored[-1]) == pytest.approx(0.1)
    assert torch.equal(floored[without >= 0.1], without[without >= 0.1])


def test_reading_the_section_needs_no_torch():
    code = "import sys, inlay.objective.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
