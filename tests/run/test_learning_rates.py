"""Rates of the methods of a stack, from the run file to the optimizer."""

import pytest

from inlay.errors import ConfigError
from inlay.methods import Lora, TextualInversion
from inlay.run.config import RunConfig
from inlay.run.load import validate


def job(learning_rate, stack=("textual_inversion",), optimizer="adamw"):
    return validate(
        RunConfig,
        {
            "base": "tabletop",
            "data": "photos",
            "method": "lora",
            "stack": [{"name": name} for name in stack],
            "train": {"steps": 1, "learning_rate": learning_rate, "optimizer": optimizer},
        },
    )


def test_each_method_trains_at_what_it_recommends():
    assert Lora.learning_rate != TextualInversion.learning_rate
    assert job(None).learning_rates == (Lora.learning_rate, TextualInversion.learning_rate)
    assert job(None).learning_rate == Lora.learning_rate


def test_one_rate_holds_for_all_and_a_list_for_each():
    assert job(0.5).learning_rates == (0.5, 0.5)
    assert job([0.5, 0.25]).learning_rates == (0.5, 0.25)
    assert job([0.5], stack=()).learning_rates == (0.5,)


def test_an_optimizer_that_finds_its_rate_begins_with_a_factor_of_one():
    assert job(None, optimizer="prodigy").learning_rates == (1.0, 1.0)
    assert job(0.5, optimizer={"name": "prodigy", "d_coef": 2}).learning_rates == (0.5, 0.5)
    assert job(None, optimizer="muon").learning_rates == job(None).learning_rates


@pytest.mark.parametrize(
    ("learning_rate", "said"),
    [
        ([0.5, 0.1, 0.1], r"3 rates for 2 methods \(lora, textual_inversion\); give one for all, or one for each"),
        ([0.5, 0], r"train.learning_rate.1: 0 is wrong; must be greater than 0"),
        ("fast", "train.learning_rate: 'fast' is wrong; must be a number or a list"),
    ],
)
def test_rates_that_do_not_fit_are_refused(learning_rate, said):
    with pytest.raises(ConfigError, match=said):
        job(learning_rate)
