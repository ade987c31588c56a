"""Computes metrics.json: the figures of established implementations for the inputs of metrics_cases.py.

The implementations need torchvision or older libraries, so they are not dependencies. Put them into a folder of
their own, and run this with inlay's environment from the project's root:

    python -m pip install --target peers --no-deps pytorch-fid==0.3.0 clean-fid==0.1.35 torch-fidelity==0.4.0 prdc==0.2
    python -m pip install --target peers scikit-learn
    python -W ignore -m tests.oracles.metrics peers
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from tests.oracles.metrics_cases import NEIGHBOURS, digest, features, pictures, weights


class Absent(ModuleType):
    """Stands for modules that are imported beside what is used here, and never called."""

    __path__: list[str] = []  # noqa: RUF012 - what makes a module a package

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (torch.nn.Module,), {})


def peers(folder: Path) -> None:
    """Make the implementations importable without torchvision."""
    sys.path.append(str(folder))  # last, so that libraries that both have are those of the environment
    vision = [f"torchvision{name}" for name in ("", ".transforms", ".models", ".models.inception")]
    for name in (*vision, "torch_fidelity.utils"):
        sys.modules[name] = Absent(name)
    package = ModuleType("torch_fidelity")  # whose own __init__ imports everything
    package.__path__ = [str(folder / "torch_fidelity")]
    sys.modules["torch_fidelity"] = package


def figures(generated: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return every implementation's figures for a pair of sets."""
    frechet = importlib.import_module("pytorch_fid.fid_score").calculate_frechet_distance
    fidelity_fid = importlib.import_module("torch_fidelity.metric_fid")
    fidelity_kid = importlib.import_module("torch_fidelity.metric_kid")
    fidelity_prc = importlib.import_module("torch_fidelity.metric_prc")
    clean = importlib.import_module("cleanfid.fid")
    prdc = importlib.import_module("prdc.prdc")
    moments = [{"mu": rows.mean(0), "sigma": np.cov(rows, rowvar=False)} for rows in (generated, reference)]
    everything = min(len(generated), len(reference))
    both = [torch.tensor(rows[:everything]) for rows in (generated, reference)]
    precision, recall = fidelity_prc.calculate_precision_recall_full(
        torch.tensor(generated), torch.tensor(reference), neighborhood=NEIGHBOURS
    )
    four = prdc.compute_prdc(reference, generated, NEIGHBOURS)
    return {
        "frechet pytorch-fid": float(frechet(*(item[key] for item in moments for key in ("mu", "sigma")))),
        "frechet clean-fid": float(clean.frechet_distance(*(item[key] for item in moments for key in ("mu", "sigma")))),
        "frechet torch-fidelity": fidelity_fid.fid_statistics_to_metric(*moments, False)["frechet_inception_distance"],
        "kid torch-fidelity": fidelity_kid.kid_features_to_metric(*both, kid_subsets=1, kid_subset_size=everything)[
            "kernel_inception_distance_mean"
        ],
        "kid clean-fid": clean.kernel_distance(*(rows.numpy() for rows in both), num_subsets=1, max_subset_size=10**6),
        "precision torch-fidelity": precision,
        "recall torch-fidelity": recall,
        **{f"{name} prdc": float(value) for name, value in four.items()},
    }


def inception(folder: Path) -> list[list[float]]:
    """Return the first 32 features of torch-fidelity's network under the weights of metrics_cases.py."""
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    # The network wants a file of weights when it is made, and its names and shapes are known only then.
    seen: dict[str, torch.Tensor] = {}

    class Shaped(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, state, *arguments, **more):
            seen.update(self.state_dict())
            shapes = {
                name: value.shape
                for name, value in seen.items()
                if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
            }
            return super().load_state_dict(weights(shapes), strict=False)

    empty = folder / "empty.pth"
    torch.save({}, empty)
    network = Shaped("inception", ["2048"], feature_extractor_weights_path=str(empty))
    (found,) = network(torch.tensor(pictures()).permute(0, 3, 1, 2))
    return found[:, :32].double().tolist()


if __name__ == "__main__":
    peers(Path(sys.argv[1]))
    with torch.inference_mode():
        result = {
            "inputs": digest(),
            "figures": {name: figures(*pair) for name, pair in features().items()},
            "inception": inception(Path(sys.argv[1])),
        }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
