"""WaveFT (arXiv 2505.12532): an update given by a few coefficients of its wavelet transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from inlay.methods.frequencies import FrequencyMethod
from inlay.methods.peft_layers import ADAPTER

if TYPE_CHECKING:
    from peft import WaveFTConfig
    from torch import nn


class WaveFT(FrequencyMethod):
    """Updates W + s IDWT(S) with a sparse S of learned wavelet coefficients, zero at first: step 0 is the base."""

    name: Literal["waveft"] = "waveft"
    scaling: Annotated[float, Field(gt=0)] = 25.0
    """By which the update is multiplied."""
    wavelet_family: Literal["db1", "db2", "db3", "db4", "sym2", "sym3", "sym4", "coif1"] = "db1"
    """The wavelet, by PyWavelets' names; `db1` is Haar's."""

    file_name: ClassVar[str] = "waveft.safetensors"
    learning_rate: ClassVar[float] = 5e-4

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        from inlay.methods.waves import Waves

        self.refuse_more_than_fit(layers)
        config = self.peft_config(list(layers), "")
        return {name: Waves(layer, ADAPTER, config, self.n_frequency) for name, layer in layers.items()}

    def peft_config(self, names: list[str], pattern: str) -> WaveFTConfig:
        from peft import WaveFTConfig

        return WaveFTConfig(
            n_frequency=self.n_frequency,
            scaling=self.scaling,
            random_loc_seed=self.random_loc_seed,
            init_weights=True,
            target_modules=pattern,
            wavelet_family=self.wavelet_family,
        )
