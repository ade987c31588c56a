import numpy as np
import pytest
from PIL import Image

from inlay.objective.effective import effective_weights
from inlay.objective.path import Path, scaled_linear_alphas_cumprod
from inlay.objective.settings import Objective
from inlay.objective.weighting import Constant, MinSNR
from inlay.run.weight_picture import draw_weights

SD = Path.from_alphas_cumprod(scaled_linear_alphas_cumprod())


@pytest.mark.parametrize("scheme", [MinSNR(), Constant()], ids=lambda scheme: scheme.name)
def test_a_picture_is_drawn(tmp_path, scheme):
    """The weights of min-SNR fit a linear axis, those of `constant` span five orders of magnitude."""
    effective = effective_weights(Objective(prediction="epsilon", weighting=scheme), SD)
    path = draw_weights(effective, scheme.name, tmp_path / "weights.png")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (495, 880, 3)
    assert (pixels[..., 2] > pixels[..., 0] + 60).sum() > 500  # the blue curve
