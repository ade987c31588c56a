"""Sizes that a person writes."""

from __future__ import annotations

import pytest

from inlay.errors import ConfigError
from inlay.run.human import parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("600MiB", 600 * 2**20), ("1.5GB", 1.5e9), ("200 kB", 2e5), ("77", 77.0), ("8GiB", 2**33)]
)
def test_sizes(text, size):
    assert parse_size(text, "--gpu") == size


@pytest.mark.parametrize("text", ["", "big", "-3MB", "3 parsecs", "0"])
def test_bad_sizes(text):
    with pytest.raises(ConfigError, match=r"--gpu: .* is no size"):
        parse_size(text, "--gpu")
