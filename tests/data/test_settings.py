import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from inlay.data.settings import DataSettings


def test_the_defaults_need_only_a_source():
    settings = DataSettings(source="photos")
    assert (settings.crop, settings.validation, settings.on_error) == ("center", 0, "stop")
    assert hash(settings) == hash(DataSettings(source="photos"))


@pytest.mark.parametrize(("given", "kind"), [(0, int), (3, int), (0.25, float)])
def test_validation_is_a_number_or_a_share(given, kind):
    held_out = DataSettings(source="photos", validation=given).validation
    assert held_out == given
    assert type(held_out) is kind


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", " "),
        ("validation", -1),
        ("validation", 1.5),
        ("horizontal_flip", 1.1),
        ("caption_dropout", -0.1),
        ("repeats", 0),
        ("count", 0),
        ("resolution", 101),
        ("background", "whitish"),
        ("background", "#ff00ff80"),
        ("bucket_step", 12),
        ("on_error", "ignore"),
    ],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ValidationError):
        DataSettings(**{"source": "photos", "buckets": True, key: value})


def test_a_bucket_step_without_buckets_is_refused():
    with pytest.raises(ValidationError, match="no effect without buckets=true"):
        DataSettings(source="photos", bucket_step=8)


def test_a_bucket_step_beyond_the_resolution_is_refused():
    with pytest.raises(ValidationError, match="larger than resolution=64"):
        DataSettings(source="photos", buckets=True, bucket_step=128, resolution=64)


def test_the_reference_page_lists_every_key():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "data.md").read_text(encoding="utf-8")
    table = page.split("## Keys")[1].split("##")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(DataSettings.model_fields)
