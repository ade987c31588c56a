import json

import numpy as np
import pytest
from PIL import Image

from inlay.objective.multitask import objective_value
from inlay.run.analysis_pictures import draw_pareto
from inlay.run.config import RunConfig
from inlay.run.load import validate
from inlay.run.pareto import OTHER_DRAW, analyze_pareto, conclusion, evaluate
from inlay.run.reporter import Silent


def grams(draws=3, bins=6, numbers=50):
    random = np.random.default_rng(0)
    common = random.normal(size=(bins, numbers))
    measured = [common + 0.5 * random.normal(size=(bins, numbers)) for _ in range(draws)]
    return [each @ each.T for each in measured]


def test_the_optimum_is_lowest_on_its_own_gradients_but_not_on_others():
    equal = np.full(6, 1 / 6)
    values, optima = evaluate(grams(), {"plain": equal, "first": np.eye(6)[0]}, [1e-3, 0.1])
    assert set(values) == {"plain", "first", "ugd", "frank_wolfe", OTHER_DRAW}
    for name, array in values.items():
        assert array.shape == (2, 3)
        assert (array >= values["frank_wolfe"] * (1 - 1e-3)).all(), name
    assert (values[OTHER_DRAW] > values["ugd"] * 1.001).all()
    assert optima["ugd"].shape == (2, 3, 6)
    np.testing.assert_allclose(optima["ugd"].sum(2), 1)


def test_values_are_the_objective_at_each_draw_and_lambda():
    measured = grams()
    shares = np.array([0.3, 0.1, 0.1, 0.2, 0.2, 0.1])
    values, optima = evaluate(measured, {"some": shares}, [0.01, 0.2])
    assert values["some"][1, 2] == pytest.approx(objective_value(shares, measured[2], 0.2))
    assert values[OTHER_DRAW][0, 1] == pytest.approx(objective_value(optima["ugd"][0, 0], measured[1], 0.01))


def test_an_analysis_repeats_to_the_same_numbers(tiny_base, photos, tmp_path):
    config = validate(
        RunConfig,
        {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a photo of sks dog"},
            "method": {"name": "lora", "rank": 2},
            "objective": {"weighting": {"name": "min_snr"}},
            "train": {"steps": 1, "batch_size": 3},
        },
    )
    record = analyze_pareto(config, Silent(), bins=4, samples=5, draws=2, lambdas=(0.01, 1.0))
    json.dumps(record, allow_nan=False)
    assert record["edges"] == [0, 250, 500, 750, 1000]
    assert record["refused"] == {}
    assert np.array(record["gram"]).shape == (2, 4, 4)
    assert not np.allclose(record["gram"][0], record["gram"][1])
    assert record["weights"]["plain"] == [0.25] * 4
    assert np.array(record["weights"]["ugd"]).shape == (2, 2, 4)
    assert np.array(record["objective"]["min_snr"]).shape == (2, 2)
    assert record["config"]["objective"]["weighting"]["name"] == "min_snr"
    again = analyze_pareto(config, Silent(), bins=4, samples=5, draws=2, lambdas=(0.01, 1.0))
    assert again["gram"] == record["gram"]
    said = conclusion(record)
    assert len(said) == 2
    assert said[0].startswith("lambda 0.01: optimum 0.")
    with Image.open(draw_pareto(record, tmp_path / "pareto.png")) as picture:
        assert picture.size[0] > 1000


def test_a_weighting_that_does_not_fit_is_left_out_with_its_reason(tmp_path, photos):
    from tests.tiny import make_tiny_pipeline

    base = make_tiny_pipeline(tmp_path / "base", rescale_betas_zero_snr=True)
    config = validate(
        RunConfig,
        {
            "base": str(base),
            "data": {"source": str(photos), "prompt": "a dog"},
            "method": {"name": "bitfit"},
            "train": {"steps": 1, "batch_size": 2},
        },
    )
    record = analyze_pareto(config, Silent(), bins=2, samples=2, draws=2, lambdas=(0.1,))
    assert set(record["refused"]) == {"constant", "max_snr", "debiased", "edm"}
    assert "has no bound" in record["refused"]["edm"]
    assert "edm" not in record["objective"]
