"""Features of digits: the hidden layer of a small classifier. Its weights are committed, so figures stay comparable.

    python studies/min-snr/features.py

trains it again with scikit-learn (a second) and writes `features.safetensors`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inlay.files import read_arrays, write_arrays
from inlay.metrics.measure import Features

WEIGHTS = Path(__file__).parent / "features.safetensors"
HIDDEN = 48


def digit_features(pictures: NDArray[np.uint8], pairing: str = "") -> Features:
    """Return the features of digits.

    Args:
        pictures: uint8 [N, 8, 8, 3].
        pairing: names the noise that they were drawn with.
    """
    arrays, _ = read_arrays(WEIGHTS)
    grey = pictures.astype(np.float64).mean(3).reshape(len(pictures), 64) / 255
    hidden = np.maximum(grey @ arrays["weight"] + arrays["bias"], 0)
    fingerprint = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    return Features(hidden, "digits-mlp", fingerprint, pairing=pairing)


def digits() -> NDArray[np.uint8]:
    """Return all 1,797 digits as inlay shows them, uint8 [N, 8, 8, 3]."""
    from inlay.data.settings import DataSettings
    from inlay.data.sources import load_examples

    examples = load_examples(DataSettings(source="digits"), 8).examples
    return np.stack([np.array(example.open()) for example in examples])


def main() -> None:
    """Train the classifier on even digits of the list, say how well it does on odd ones, and save it."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    data: Any = load_digits()
    pictures = digits().mean(3).reshape(-1, 64) / 255
    classifier = MLPClassifier((HIDDEN,), alpha=1e-2, max_iter=400, random_state=0)
    classifier.fit(pictures[::2], data.target[::2])
    accuracy = classifier.score(pictures[1::2], data.target[1::2])
    weights = {"weight": classifier.coefs_[0], "bias": classifier.intercepts_[0]}
    write_arrays(WEIGHTS, weights, {"accuracy": f"{accuracy:.4f}"})
    print(f"right on {100 * accuracy:.1f} % of {len(pictures[1::2])} unseen digits; {WEIGHTS}")


if __name__ == "__main__":
    main()
