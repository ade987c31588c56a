"""PEFT's WaveFT layer, with the update put together without looking at values, so that plans can count it too."""

from __future__ import annotations

from typing import Any

from peft.tuners.waveft.constants import WAVELET_REDUCTIONS
from peft.tuners.waveft.layer import WaveFTLinear
from peft.tuners.waveft.waverec2d import waverec2d
from torch import Tensor


class Waves(WaveFTLinear):
    """W + s IDWT(S) (arXiv 2505.12532, section 3)."""

    def get_delta_weight(self, adapter: Any) -> Tensor:
        """Return the update [outputs, inputs]: the middle of what the coefficients give."""
        family, spectrum = self.waveft_wavelet_family[adapter], self.waveft_spectrum[adapter]
        sizes = (self.out_features, self.in_features)
        more = WAVELET_REDUCTIONS[family]
        padded = [size + extra + (size + extra) % 2 for size, extra in zip(sizes, more, strict=True)]
        rows, columns = (
            places + (outer - size) // 2
            for places, outer, size in zip(self.waveft_indices[adapter].to(spectrum.device), padded, sizes, strict=True)
        )
        dense = spectrum.new_zeros(padded).index_put((rows, columns), spectrum)
        (low, across), (down, both) = (half.chunk(2, dim=1) for half in dense.chunk(2, dim=0))
        coefficients: Any = (low, (across, down, both))
        update = waverec2d(coefficients, family) * self.waveft_scaling[adapter]
        top, left = ((found - size) // 2 for found, size in zip(update.shape, sizes, strict=True))
        return update[top : top + sizes[0], left : left + sizes[1]]
