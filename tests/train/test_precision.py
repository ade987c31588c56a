"""Precision: which kernels attend."""

import pytest
import torch

from inlay.train.precision import attention_kernel


@pytest.mark.parametrize(
    ("precision", "positions", "fused"), [("bf16", 64, False), ("bf16", 256, True), ("fp32", 64, True)]
)
def test_short_attention_in_bf16_on_a_cpu_is_plain_matrix_products(precision, positions, fused):
    allowed = torch.backends.cuda.flash_sdp_enabled()
    with attention_kernel(torch.device("cpu"), precision, positions):
        assert torch.backends.cuda.flash_sdp_enabled() == (fused and allowed)
    assert torch.backends.cuda.flash_sdp_enabled() == allowed
