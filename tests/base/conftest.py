"""Tiny bases on disk, written once for all tests of this folder. Tests copy what they change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.base.stable_diffusion import StableDiffusion
from tests.tiny import make_tiny_pipeline


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline like Stable Diffusion 1.x."""
    return make_tiny_pipeline(tmp_path_factory.mktemp("bases") / "first")


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline like Stable Diffusion 2.x, which predicts v."""
    return make_tiny_pipeline(tmp_path_factory.mktemp("bases") / "second", "v_prediction", second=True)


@pytest.fixture
def copied(first: Path, tmp_path: Path) -> Path:
    """A copy of the first pipeline, to break."""
    return Path(shutil.copytree(first, tmp_path / "base"))


@pytest.fixture(scope="session")
def load() -> Callable[..., StableDiffusion]:
    """Load a base from a directory and further settings."""
    return lambda path, **settings: load_base(BaseSettings(model=str(path), **settings))
