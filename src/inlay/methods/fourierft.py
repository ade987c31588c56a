"""FourierFT (arXiv 2405.03003): an update given by a few coefficients of its two-dimensional Fourier transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from inlay.methods.frequencies import FrequencyMethod

if TYPE_CHECKING:
    from peft import FourierFTConfig
    from torch import nn


class FourierFT(FrequencyMethod):
    """Updates W + alpha Re(F^-1(S)) with a spectrum S of few learned entries, zero at first: step 0 is the base."""

    name: Literal["fourierft"] = "fourierft"
    scaling: Annotated[float, Field(gt=0)] = 150.0
    """By which the update is multiplied."""

    file_name: ClassVar[str] = "fourierft.safetensors"
    learning_rate: ClassVar[float] = 5e-3

    def wrappers(self, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        self.refuse_more_than_fit(layers)
        return super().wrappers(layers)

    def peft_config(self, names: list[str], pattern: str) -> FourierFTConfig:
        from peft import FourierFTConfig

        return FourierFTConfig(
            n_frequency=self.n_frequency,
            scaling=self.scaling,
            random_loc_seed=self.random_loc_seed,
            init_weights=True,
            target_modules=pattern,
        )
