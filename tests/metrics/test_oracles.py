"""Agreement with established implementations on the same features, and on the same Inception weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from inlay.metrics.frechet import frechet, frechet_distance
from inlay.metrics.inception import Inception
from inlay.metrics.kernels import kid, kid_subsets
from inlay.metrics.manifold import density_coverage, precision_recall
from inlay.metrics.measure import Features
from inlay.metrics.reference import summarise
from tests.metrics.sets import of
from tests.oracles.metrics_cases import NEIGHBOURS, digest, features, pictures, weights

ORACLE = json.loads((Path(__file__).parent.parent / "oracles" / "metrics.json").read_text())
CASES = features()
RELATIVE = 1e-3


def test_inputs_are_those_of_the_oracle():
    assert digest() == ORACLE["inputs"], "random streams have changed: run tests/oracles/metrics.py again"


@pytest.fixture(params=CASES)
def case(request) -> tuple[Features, Features, dict[str, float]]:
    return *(of(rows) for rows in CASES[request.param]), ORACLE["figures"][request.param]


def test_frechet_distances_agree_with_three_implementations(case):
    generated, reference, expected = case
    for peer in ("pytorch-fid", "clean-fid", "torch-fidelity"):
        assert frechet(generated, summarise(reference)).value == pytest.approx(
            expected[f"frechet {peer}"], rel=RELATIVE
        )
        assert frechet_distance(generated.values, reference.values) == pytest.approx(
            expected[f"frechet {peer}"], rel=RELATIVE
        )


def test_kernel_distances_agree_with_two_implementations(case):
    generated, reference, expected = case
    count = min(len(generated), len(reference))  # theirs want equally many
    equal = of(generated.values[:count]), of(reference.values[:count])
    for peer in ("torch-fidelity", "clean-fid"):
        assert kid(*equal).value == pytest.approx(expected[f"kid {peer}"], rel=RELATIVE)
        assert kid_subsets(*equal, subsets=1)[0] == pytest.approx(expected[f"kid {peer}"], rel=RELATIVE)


def test_precision_recall_density_and_coverage_agree(case):
    generated, reference, expected = case
    ours = (*precision_recall(generated, reference, NEIGHBOURS), *density_coverage(generated, reference, NEIGHBOURS))
    for measure in ours:
        assert measure.value == pytest.approx(expected[f"{measure.metric} prdc"], rel=RELATIVE), measure.metric
    for measure in ours[:2]:
        assert measure.value == pytest.approx(expected[f"{measure.metric} torch-fidelity"], rel=RELATIVE)


def test_the_inception_network_agrees():
    network = Inception().eval()
    shapes = {
        name: value.shape for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    network.load_state_dict(weights(shapes), strict=False)
    with torch.inference_mode():
        found = network((torch.tensor(pictures()).permute(0, 3, 1, 2).float() - 128) / 128)
    assert found.shape == (2, 2048)
    np.testing.assert_allclose(found[:, :32].numpy(), ORACLE["inception"], rtol=RELATIVE, atol=1e-4)
