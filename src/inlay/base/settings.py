"""The run file's ``base`` section."""

from __future__ import annotations

from typing import Literal

from inlay.settings import Settings


class BaseSettings(Settings):
    """Which pretrained model to start from."""

    model: str
    """`tabletop` (the small model that ships with inlay), a directory in diffusers' layout, a hub id, or one
    `.safetensors` checkpoint. For `inlay plan` also `sd-v1.4` and `sd-v2.1`: architectures without weights."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    architecture: str | None = None
    """For a `.safetensors` checkpoint: a directory in diffusers' layout, or a built-in name, that gives the
    architecture; by default `sd-v1.4` or `sd-v2.1`, told apart by the width of the text states."""
    tokenizer: str | None = None
    """For a `.safetensors` checkpoint, which holds none: a tokenizer's directory or hub id. By default the
    `tokenizer` folder of `architecture` where there is one, else `openai/clip-vit-large-patch14`."""
    prediction: Literal["auto", "epsilon", "v_prediction", "sample"] = "auto"
    """What the denoiser predicts, where the files do not say it or say it wrongly."""
    zero_terminal_snr: Literal["auto"] | bool = "auto"
    """Rescale the noise schedule to zero terminal SNR (arXiv 2305.08891); `auto` follows the base's scheduler."""
