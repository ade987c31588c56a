"""The layers of models by name, without weights: a base's, and those of the published families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from inlay.artifacts.blueprint import Blueprint, layer_shapes
from inlay.base.architecture import read_architecture
from inlay.base.locate import BUILT_IN, locate
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError

XL = "sdxl"
"""What `--base` calls Stable Diffusion XL, which is known here by its layers alone."""
FAMILIES = (*BUILT_IN, XL)
XL_UNET: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""Arguments of ``UNet2DConditionModel`` (arXiv 2307.01952, table 1, and the published configuration)."""
XL_TEXT: dict[str, dict[str, Any]] = {
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    },
}
"""Arguments of ``CLIPTextConfig`` for its two text encoders: CLIP ViT-L and OpenCLIP ViT-bigG."""


@cache
def family(name: str) -> Blueprint:
    """Return one of FAMILIES. What its models differ in, such as the prediction, is left out."""
    if name == XL:
        return Blueprint(
            "Stable Diffusion XL",
            layer_shapes(xl_components()),
            architecture="stable-diffusion-xl-v1-base",
            kohya_version="sdxl_base_v1-0",
            resolution=1024,
        )
    settings = BaseSettings(model=name)
    architecture = read_architecture(settings, locate(settings, weights=False))
    second = architecture.unet["cross_attention_dim"] == 1024
    return Blueprint(
        f"Stable Diffusion {2 if second else 1}",
        layer_shapes(architecture.meta()),
        # Of Stable Diffusion 2, ModelSpec names two architectures, which predict different things at different sizes.
        architecture=None if second else "stable-diffusion-v1",
        kohya_version="sd_v2" if second else "sd_v1",
    )


def base_blueprint(settings: BaseSettings) -> Blueprint:
    """Return the layers of a base, and what the ecosystem calls its architecture where it is a published one.

    Raises:
        ConfigError: there is no such base, or it is no Stable Diffusion model.
    """
    if settings.model == XL:
        return family(XL)
    if settings.model in BUILT_IN:
        return family(settings.model)
    architecture = read_architecture(settings, locate(settings, weights=False))
    parts = architecture.meta()
    shapes = layer_shapes(parts)
    own = Blueprint(settings.model, shapes, resolution=architecture.resolution, prediction=architecture.prediction)
    same = [one for one in map(family, BUILT_IN) if one.shapes == shapes]
    if not same:
        return own
    predicts_velocity = architecture.prediction == "v_prediction"
    if same[0].architecture is not None:
        version = "sd_v1_v" if predicts_velocity else "sd_v1"
        return replace(own, architecture=same[0].architecture, kohya_version=version)
    # The published pairs: 768 pixels with velocity, 512 with noise. What is neither has no name.
    named = {
        (768, True): "stable-diffusion-v2-768-v",
        (512, False): "stable-diffusion-v2-512",
    }.get((architecture.resolution, predicts_velocity))
    return replace(own, architecture=named, kohya_version="sd_v2_v" if predicts_velocity else "sd_v2")


def candidates(base: str | None, said: Mapping[str, str]) -> list[Blueprint]:
    """Return the models that a file may belong to.

    Args:
        base: what the user says, a name as in run files or `sdxl`; None to go by the file.
        said: the file's header. The base that it names is taken where its files are here; else the published families
            are tried.

    Raises:
        ConfigError: there is no such base.
    """
    if base is not None:
        if base not in FAMILIES and base != "tabletop" and not Path(base).expanduser().exists() and "/" not in base:
            raise ConfigError(
                f"--base {base}: no such directory or file; allowed: tabletop, {', '.join(FAMILIES)}, a directory in "
                "diffusers' layout, a hub id owner/name, a .safetensors checkpoint"
            )
        return [base_blueprint(BaseSettings(model=base))]
    named = said.get("inlay.base", "")
    if named == "tabletop" or named in FAMILIES or (named and Path(named).expanduser().exists()):
        return [base_blueprint(BaseSettings(model=named))]
    return [family(name) for name in FAMILIES]


def xl_components() -> dict[str, Any]:
    """Return the parts of Stable Diffusion XL on the meta device."""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    classes = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    with torch.device("meta"):
        parts: dict[str, Any] = {"unet": UNet2DConditionModel(**XL_UNET)}
        return parts | {part: classes[part](CLIPTextConfig(**XL_TEXT[part])) for part in classes}
