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
    picture = Image.open(path).convert("RGB")
    assert picture.size == (880, 495)
    blue = sum(1 for red, _, value in picture.getdata() if value > red + 60)
    assert blue > 500  # the curve
