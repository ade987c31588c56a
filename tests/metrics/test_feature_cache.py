"""Features extracted once: by content, for one extractor, in files that may break."""

import numpy as np
import pytest

from inlay.errors import ArtifactError
from inlay.metrics.feature_cache import TOGETHER, FeatureCache, NamedPictures


class Counting:
    """Extracts mean and maximum, and counts the pictures."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pictures: list[np.ndarray]) -> np.ndarray:
        self.seen += len(pictures)
        return np.array([[picture.mean(), picture.max()] for picture in pictures], dtype=np.float32)


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (4, 3 + place % 2, 3), dtype=np.uint8) for place in range(count)]


def test_each_picture_is_extracted_once(tmp_path):
    extract, some = Counting(), pictures(5)
    first = FeatureCache(tmp_path, "tower").features([*some, some[0]], extract)
    assert extract.seen == 5
    assert np.array_equal(first[5], first[0])
    again = FeatureCache(tmp_path, "tower").features([*some[::-1], *pictures(2, seed=1)], extract)
    assert extract.seen == 7
    assert np.array_equal(again[:5], first[4::-1])


def test_named_pictures_are_read_only_where_their_features_are_not_kept(tmp_path):
    extract, some, read = Counting(), pictures(TOGETHER + 3), []

    def look(place: int) -> np.ndarray:
        read.append(place)
        return some[place]

    names = [f"picture {place}" for place in range(len(some))]
    named = NamedPictures(names, look)
    assert len(named) == len(some)
    first = FeatureCache(tmp_path, "tower").features(named, extract)
    assert read == list(range(len(some)))
    assert np.array_equal(first, extract(some))
    again = FeatureCache(tmp_path, "tower").features(NamedPictures([*names[1:3], "new"], look), extract)
    assert read[len(some) :] == [2]  # the new one stands third
    assert np.array_equal(again, first[[1, 2, 2]])
    assert np.array_equal(named[-1], some[-1])
    assert all(np.array_equal(one, other) for one, other in zip(named[1:5:2], some[1:5:2], strict=True))
    with pytest.raises(IndexError):
        named[len(some)]


def test_another_extractor_shares_nothing(tmp_path):
    extract = Counting()
    FeatureCache(tmp_path, "one").features(pictures(3), extract)
    FeatureCache(tmp_path, "two").features(pictures(3), extract)
    assert extract.seen == 6


def test_the_shape_is_content(tmp_path):
    extract, flat = Counting(), np.zeros((2, 8, 3), np.uint8)
    FeatureCache(tmp_path, "tower").features([flat, flat.reshape(8, 2, 3)], extract)
    assert extract.seen == 2


def test_a_broken_file_is_extracted_again(tmp_path):
    extract, some = Counting(), pictures(3)
    before = FeatureCache(tmp_path, "tower").features(some, extract)
    (path,) = (tmp_path / "tower").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert np.array_equal(FeatureCache(tmp_path, "tower").features(some, extract), before)
    assert extract.seen == 6


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tower").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        FeatureCache(tmp_path, "tower").features(pictures(1), Counting())
