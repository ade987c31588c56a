"""What the figures in metrics.json were computed from: features, and weights for the Inception network."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch

NEIGHBOURS = 4
"""k of precision, recall, density and coverage."""


def features() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return pairs of generated and reference features, [N, D] and [M, D], in float64."""
    draw = np.random.default_rng(20261120)
    mixing = draw.normal(size=(48, 48)) / 7
    return {
        "shifted normals": (draw.normal(size=(300, 16)) + 0.3, draw.normal(size=(300, 16))),
        # like pooled activations: not negative, correlated, with spread of their own
        "rectified": (
            np.maximum(draw.normal(size=(400, 48)) @ mixing + 0.2, 0),
            np.maximum(draw.normal(size=(400, 48)) @ mixing * 1.2, 0),
        ),
        "fewer pictures than features": (draw.normal(size=(40, 64)), draw.normal(size=(60, 64)) * 1.5 + 0.5),
    }


def pictures() -> np.ndarray:
    """Return two pictures, uint8 [2, 299, 299, 3], with structure at several scales."""
    draw = np.random.default_rng(7)
    grown = sum(
        np.kron(draw.normal(size=(2, 300 // size, 300 // size, 3)), np.ones((1, size, size, 1))) for size in (5, 30)
    )
    return (128 + 45 * grown[:, :299, :299]).clip(0, 255).astype(np.uint8)


def weights(shapes: Mapping[str, Iterable[int]]) -> dict[str, torch.Tensor]:
    """Return weights for the names and shapes of a network, under which activations keep their size."""
    state = {}
    for place, (name, shape) in enumerate(sorted(shapes.items())):
        draw = np.random.default_rng(place)
        shape = tuple(shape)
        if name.endswith("conv.weight"):
            values = draw.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]), dtype=np.float32)
        elif name.endswith(("bn.weight", "running_var")):
            values = draw.uniform(0.7, 1.3, shape)
        else:
            values = draw.normal(0, 0.1, shape)
        state[name] = torch.tensor(values, dtype=torch.float32)
    return state


def digest() -> str:
    """Return a hash of all inputs, to tell a changed random stream from a changed metric."""
    arrays = [array for pair in features().values() for array in pair]
    content = b"".join(np.round(array, 6).tobytes() for array in arrays) + pictures().tobytes()
    return hashlib.sha256(content).hexdigest()
