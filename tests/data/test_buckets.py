import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.data.buckets import LARGEST_ASPECT, bucket_sizes, nearest_bucket


def test_the_buckets_of_512():
    landscape = [(384, 704), (384, 640), (448, 576)]
    assert bucket_sizes(512) == [*landscape, (512, 512), *((w, h) for h, w in reversed(landscape))]


@given(resolution=st.integers(2, 128).map(lambda n: 8 * n), step=st.sampled_from([None, 8, 16, 64]))
def test_buckets_hold_about_as_many_pixels_as_the_square(resolution, step):
    sizes = bucket_sizes(resolution, step)
    assert (resolution, resolution) in sizes
    assert sorted(sizes) == sorted((width, height) for height, width in sizes)
    used = step or max(8, resolution // 64 * 8)
    for height, width in set(sizes) - {(resolution, resolution)}:
        assert height % used == width % used == 0
        assert max(height / width, width / height) <= LARGEST_ASPECT
        assert abs(height * width - resolution**2) <= used * max(height, width) / 2


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(100, 100, (512, 512)), (400, 300, (448, 576)), (300, 400, (576, 448)), (9000, 100, (384, 704))],
)
def test_a_picture_goes_to_the_nearest_shape(width, height, expected):
    assert nearest_bucket(width, height, bucket_sizes(512)) == expected


@given(width=st.integers(1, 5000), height=st.integers(1, 5000))
def test_no_other_bucket_is_nearer(width, height):
    sizes = bucket_sizes(256)

    def distance(size):
        return abs(math.log(size[1] / size[0]) - math.log(width / height))

    assert distance(nearest_bucket(width, height, sizes)) == pytest.approx(min(map(distance, sizes)))
