import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from inlay.errors import ConfigError
from inlay.run.analysis_pictures import draw_conflict
from inlay.run.config import RunConfig
from inlay.run.conflict import analyze_conflict, conclusion, cosines_between_draws
from inlay.run.load import validate
from inlay.run.reporter import Silent


@pytest.fixture
def make(tiny_base, photos):
    def build(**train):
        return validate(
            RunConfig,
            {
                "base": str(tiny_base),
                "data": {"source": str(photos), "prompt": "a photo of sks dog"},
                "method": "full",
                "train": {"steps": 3, "batch_size": 4, "learning_rate": 2e-3, **train},
            },
        )

    return build


def test_every_bin_is_measured_after_training_on_one_and_on_all(make, tmp_path):
    config = make()
    record = analyze_conflict(config, Silent(), bins=3, trained_bins=(0, 2), samples=6, draws=2)
    json.dumps(record, allow_nan=False)
    assert record["edges"] == [0, 334, 667, 1000]
    assert list(record["changes"]) == ["uniform", "0", "2"]
    matrix = np.array(record["cosines"])
    np.testing.assert_allclose(matrix, matrix.T)
    assert (np.diag(matrix) < 1).all()  # other pictures, other gradients
    assert np.array(record["cosines_spread"]).shape == (3, 3)
    values = np.array([change["relative_change"] for change in record["changes"].values()])
    errors = np.array([change["standard_error"] for change in record["changes"].values()])
    assert values.shape == (3, 3)
    by_draw = np.array([change["by_draw"] for change in record["changes"].values()])
    assert by_draw.shape == (3, 2, 3)
    np.testing.assert_allclose(by_draw.mean(1), values)
    assert (by_draw[:, 0] != by_draw[:, 1]).all()
    assert (errors > 0).all()
    # Trained at a large rate, a bin gets better at its own task, by more than training on the other makes it.
    assert values[1, 0] < -2 * errors[1, 0]
    assert values[2, 2] < -2 * errors[2, 2]
    said = conclusion(record)
    assert said[0].startswith("trained on all timesteps: ")
    assert said[2].startswith("trained on 667 to 1000: its own loss changed by -")
    with Image.open(draw_conflict(record, tmp_path / "conflict.png")) as picture:
        assert picture.size[0] > 1000


def test_each_training_begins_at_the_same_weights(make):
    """What was trained before must not be seen in what comes after."""
    config = make()
    first = analyze_conflict(config, Silent(), bins=2, trained_bins=(0, 1), samples=2, draws=2)
    second = analyze_conflict(config, Silent(), bins=2, trained_bins=(1,), samples=2, draws=2)
    assert first["changes"]["1"] == second["changes"]["1"]
    assert first["loss_before"] == second["loss_before"]
    assert first["changes"]["uniform"] == second["changes"]["uniform"]
    assert first["changes"]["0"] != first["changes"]["1"]


def test_ctrl_c_ends_the_whole_analysis(make):
    class Interrupting(Silent):
        def step(self, state):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        analyze_conflict(make(), Interrupting(), bins=2, trained_bins=(0,), samples=2, draws=2)


@pytest.mark.parametrize("bins", [(3,), (0, 0)])
def test_bins_that_do_not_exist_are_refused(make, bins):
    with pytest.raises(ConfigError, match="must be different numbers from 0 to 2"):
        analyze_conflict(make(), Silent(), bins=3, trained_bins=bins, samples=2, draws=2)


def test_a_run_that_the_clock_ends_is_refused(make):
    with pytest.raises(ConfigError, match=r"train\.steps: must be set"):
        analyze_conflict(make(steps=None, minutes=1), Silent(), bins=3, trained_bins=(0,), samples=2, draws=2)


def test_cosines_are_between_different_draws():
    common = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    noise = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    means, spread = cosines_between_draws(torch.stack([common + each for each in noise]))
    # Each gradient is half its bin's own and half noise, which is never the same twice.
    np.testing.assert_allclose(means, [[0.5, 0], [0, 0.5]], atol=1e-12)
    np.testing.assert_allclose(spread, 0, atol=1e-12)


def test_a_bin_without_gradient_has_no_direction():
    means, _ = cosines_between_draws(torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [2.0, 0.0]]]))
    np.testing.assert_allclose(means, [[0, 0], [0, 1]])
