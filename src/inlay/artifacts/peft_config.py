"""Rank and alpha of many layers in PEFT's configuration: the commonest values, and patterns for the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from inlay.artifacts.layers import LowRank, Scaled

PEFT_ALPHA = 8
"""PEFT's default."""


def describe(part: str, layers: Mapping[str, Scaled]) -> dict[str, Any]:
    """Return rank, alpha and layers of one part of a model as PEFT's configuration states them.

    Args:
        part: `unet` or a text encoder.
        layers: by path inside the part.
    """
    low_rank = all(isinstance(update, LowRank) for update in layers.values())
    rslora = low_rank and all(update.rslora for update in layers.values())
    ranks = {path: update.rank for path, update in layers.items()}
    alphas = {path: _number(_alpha(update, rslora)) for path, update in layers.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    config: dict[str, Any] = {
        "r": rank,
        "lora_alpha" if low_rank else "alpha": alpha,
        "rank_pattern": {_pattern(part, path): value for path, value in ranks.items() if value != rank},
        "alpha_pattern": {_pattern(part, path): value for path, value in alphas.items() if value != alpha},
        "target_modules": sorted(_target(part, path) for path in layers),
    }
    if low_rank:
        config |= {
            "use_dora": any(update.magnitude is not None for update in layers.values()),
            "use_rslora": rslora,
            # diffusers leaves the layers that it loads in training mode: dropout would act in its pictures.
            "lora_dropout": 0.0,
        }
    return config


def stated_alpha(config: Mapping[str, Any], path: str) -> float:
    """Return the alpha that a PEFT configuration gives to a layer."""
    patterns = config.get("alpha_pattern") or {}
    # The first pattern that matches counts, as in peft.utils.other.get_pattern_key.
    found = next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), None)
    if found is not None:
        return float(found)
    return float(config.get("lora_alpha", config.get("alpha", PEFT_ALPHA)))


def _alpha(update: Scaled, rslora: bool) -> float:
    if not rslora:
        return update.plain_alpha
    return update.rank if update.alpha is None else update.alpha


def _number(value: float) -> float | int:
    """Return a whole number as PEFT writes it."""
    return int(value) if value == int(value) else value


def _target(part: str, path: str) -> str:
    # PEFT matches endings: without the level `text_model` a name is right under transformers 4 and 5.
    return path.removeprefix("text_model.") if part.startswith("text_encoder") else path


def _pattern(part: str, path: str) -> str:
    target = _target(part, path)
    return target if part.startswith("text_encoder") else f"^{target}"
