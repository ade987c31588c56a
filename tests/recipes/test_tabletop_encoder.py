"""The encoder in closed form: what the weights compute is the linear code."""

import numpy as np
import pytest
import torch

from inlay.data.tabletop import World


@pytest.fixture(scope="module")
def images():
    return World("train").render_many(range(48))[0]


def test_encoder_computes_the_code(recipe_folder, images):
    import autoencoder
    import encoder
    from pictures import pixels

    model = autoencoder.build(24)
    code, _ = encoder.fit_code(images, 24)
    encoder.set_encoder(model, code, autoencoder.SPREAD)
    with torch.no_grad():
        posterior = model.encode(pixels(images)).latent_dist
    expected = torch.from_numpy(code(images))
    # The group norm still feels the picture's contrast a little; 1 % of the latents' spread of 1.
    assert (posterior.mean - expected).std() < 0.01
    assert expected.std() == pytest.approx(1.0, abs=0.02)
    assert posterior.std.mean() == pytest.approx(autoencoder.SPREAD, rel=1e-3)


def test_facts_tell_what_linear_decoding_loses(recipe_folder, images):
    import encoder

    code, facts = encoder.fit_code(images, 24)
    latents = code(images).transpose(0, 2, 3, 1).reshape(-1, 24)
    patches = images.reshape(-1, 8, 8, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 192) / 255
    known = np.c_[latents, np.ones(len(latents))]
    error = patches - known @ np.linalg.lstsq(known, patches, rcond=None)[0]
    measured = -10 * np.log10((error**2).mean())
    assert facts["psnr_of_linear_decoding_of_mean_error"] == pytest.approx(measured, abs=0.05)


def test_halving_keeps_neighbours_together(recipe_folder):
    import encoder

    field = np.arange(16).reshape(1, 4, 4, 1)
    assert encoder.halve(field)[0, 0, 1].tolist() == [2, 3, 6, 7]
