"""The run file's sections ``base`` and ``path``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from inlay.settings import Settings

NONE = "none"
"""The name of no base at all."""


class BaseSettings(Settings):
    """Which pretrained model to start from."""

    model: str
    """`tabletop` (the small model that ships with inlay), a directory in diffusers' layout, a hub id, or one
    `.safetensors` checkpoint. `none` for a model of pixels that is trained from scratch. For `inlay plan` also
    `sd-v1.4`, `sd-v2.1` and `sdxl`: architectures without weights."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    architecture: str | None = None
    """For a `.safetensors` checkpoint: a directory in diffusers' layout, or a built-in name, that gives the
    architecture; by default one of the built-in ones, told apart by the width of the text states."""
    tokenizer: str | None = None
    """For a `.safetensors` checkpoint, which holds none: a tokenizer's directory or hub id. By default the
    `tokenizer` folder of `architecture` where there is one, else `openai/clip-vit-large-patch14`."""
    prediction: Literal["auto", "epsilon", "v_prediction", "sample"] = "auto"
    """What the denoiser predicts, where the files do not say it or say it wrongly."""
    zero_terminal_snr: Literal["auto"] | bool = "auto"
    """Rescale the noise schedule to zero terminal SNR (arXiv 2305.08891); `auto` follows the base's scheduler."""


class PathSettings(Settings):
    """How a clean picture turns into noise, for models that are trained from scratch."""

    name: Literal["cosine", "linear", "scaled_linear", "flow"] = "cosine"
    """`cosine` (arXiv 2102.09672), `linear` (arXiv 2006.11239), `scaled_linear` (Stable Diffusion's), or `flow`: the
    straight line of rectified flow (arXiv 2209.03003)."""
    timesteps: Annotated[int, Field(ge=2)] = 1000
    """Steps into which the way is cut."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that its last step holds no signal at all (arXiv 2305.08891)."""

    @model_validator(mode="after")
    def _flow_ends_in_noise(self) -> PathSettings:
        if self.name == "flow" and self.zero_terminal_snr:
            raise ValueError("a flow ends in pure noise anyway; leave zero_terminal_snr out")
        return self
