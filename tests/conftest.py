"""What holds for every test: a quiet, offline, single-threaded process with its own cache."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Set before any library reads them: the two pytest workers share the cores, pictures are drawn without a display,
# and a test that reaches for the network fails at once instead of depending on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["INLAY_CACHE"] = tempfile.mkdtemp(prefix="inlay-tests-")
atexit.register(shutil.rmtree, os.environ["INLAY_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A complete Stable Diffusion pipeline that takes a second to make."""
    from tests.tiny import make_tiny_pipeline

    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of six pictures that differ."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(6):
        coarse = random.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 32), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder
