"""The layers of models by name, without weights: a base's, and those of the published families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from inlay.artifacts.blueprint import Blueprint, layer_shapes
from inlay.base.families import read_base
from inlay.base.locate import BUILT_IN, locate
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError

XL = "sdxl"
"""The name of Stable Diffusion XL's architecture."""


@cache
def family(name: str) -> Blueprint:
    """Return one of the built-in architectures. What its models differ in, such as the prediction, is left out."""
    settings = BaseSettings(model=name)
    architecture = read_base(settings, locate(settings, weights=False))
    if name == XL:
        return Blueprint(
            "Stable Diffusion XL",
            layer_shapes(architecture.meta()),
            architecture="stable-diffusion-xl-v1-base",
            kohya_version="sdxl_base_v1-0",
            resolution=1024,
        )
    second = architecture.text_shape == (77, 1024)
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
    if settings.model in BUILT_IN:
        return family(settings.model)
    architecture = read_base(settings, locate(settings, weights=False))
    parts = architecture.meta()
    shapes = layer_shapes(parts)
    own = Blueprint(settings.model, shapes, resolution=architecture.resolution, prediction=architecture.prediction)
    same = [one for one in map(family, BUILT_IN) if one.shapes == shapes]
    if not same:
        return own
    if same[0].xl:
        return replace(own, architecture=same[0].architecture, kohya_version=same[0].kohya_version)
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
        if base not in BUILT_IN and base != "tabletop" and not Path(base).expanduser().exists() and "/" not in base:
            raise ConfigError(
                f"--base {base}: no such directory or file; allowed: tabletop, {', '.join(BUILT_IN)}, a directory in "
                "diffusers' layout, a hub id owner/name, a .safetensors checkpoint"
            )
        return [base_blueprint(BaseSettings(model=base))]
    named = said.get("inlay.base", "")
    if named == "tabletop" or named in BUILT_IN or (named and Path(named).expanduser().exists()):
        return [base_blueprint(BaseSettings(model=named))]
    return [family(name) for name in BUILT_IN]
