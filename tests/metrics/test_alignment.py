"""Alignment, fidelity, diversity: means over exactly the pairs that they claim."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.errors import DataError
from inlay.metrics.alignment import clip_text, diversity, image_similarity
from tests.metrics.sets import normal, of


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def test_fidelity_is_the_mean_over_all_pairs():
    one, two = normal(7), normal(4, seed=1)
    expected = np.mean([cosine(a, b) for a in one.values for b in two.values])
    assert image_similarity(one, two).value == pytest.approx(expected)


def test_alignment_is_the_mean_over_matching_rows():
    one, two = normal(7), normal(7, seed=1)
    assert clip_text(one, two).value == pytest.approx(
        np.mean([cosine(a, b) for a, b in zip(one.values, two.values, strict=True)])
    )
    with pytest.raises(DataError, match="7 pictures, 6 texts"):
        clip_text(one, normal(6))


def test_diversity_is_the_mean_over_pairs_of_one_prompt():
    one = normal(9, clusters="aabbbbccd")
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j and "aabbbbccd"[i] == "aabbbbccd"[j]]
    expected = np.mean([1 - cosine(one.values[i], one.values[j]) for i, j in pairs])
    found = diversity(one)
    assert found.value == pytest.approx(expected)
    assert found.interval is not None
    assert diversity(of(np.ones((5, 3)))).value == pytest.approx(0)
    with pytest.raises(DataError, match="several noises"):
        diversity(normal(3, clusters="abc"))


def test_diversity_of_one_pair_has_no_interval():
    found = diversity(normal(4, clusters="aabc"))
    assert found.interval is None
    assert "No interval" in found.note


@pytest.mark.parametrize(
    ("extractor", "metric"),
    [
        ("clip:openai/clip-vit-base-patch32", "CLIP-I"),
        ("inlay-tabletop-clip", "CLIP-I"),
        ("dino:facebook/dino-vits16", "DINO-I"),
        ("dinov2:facebook/dinov2-base", "DINOv2-I"),
        ("inception", "inception-I"),
    ],
)
def test_names_follow_the_extractor(extractor, metric):
    assert image_similarity(normal(3, extractor=extractor), normal(3, seed=1, extractor=extractor)).metric == metric


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 100))
def test_lengths_do_not_matter_and_a_picture_is_like_itself(seed, scale):
    one, two = normal(5, seed=seed), normal(4, seed=seed + 1)
    assert image_similarity(of(one.values * scale), two).value == pytest.approx(image_similarity(one, two).value)
    assert image_similarity(of(one.values[:1]), of(one.values[:1] * scale)).value == pytest.approx(1)
    assert -1 <= image_similarity(one, two).value <= 1
    assert diversity(of(one.values * scale)).value == pytest.approx(diversity(one).value)
