"""Saved statistics of a reference set: the same after reading, and nothing else is taken for them."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from inlay.errors import ArtifactError, DataError
from inlay.metrics.frechet import frechet
from inlay.metrics.reference import load_reference, save_reference, summarise
from tests.metrics.sets import normal


def test_statistics_survive_a_file(tmp_path):
    before = summarise(normal(30))
    after = load_reference(save_reference(before, tmp_path / "deep" / "reference.safetensors"))
    assert frechet(normal(40, seed=1), after) == frechet(normal(40, seed=1), before)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["reference.safetensors"]


def test_statistics_are_mean_and_unbiased_covariance():
    rows = normal(30)
    found = summarise(rows)
    assert found.mean == pytest.approx(rows.values.mean(0))
    assert found.covariance == pytest.approx(np.cov(rows.values, rowvar=False))
    assert found.pictures == 30


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        load_reference(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("text")
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        load_reference(tmp_path / "text")
    save_file({"mean": np.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="not a file of reference statistics"):
        load_reference(tmp_path / "other.safetensors")


def test_what_cannot_be_written_or_summarised_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        save_reference(summarise(normal(5)), tmp_path / "file" / "reference.safetensors")
    with pytest.raises(DataError, match="two pictures"):
        summarise(normal(1))
