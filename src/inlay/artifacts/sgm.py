"""The denoiser of Stable Diffusion XL under the names of the original code (sgm), which kohya's files have.

The original counts blocks through: 1 + level x (layers + 1) + layer on the way down, a level's change of resolution
last; inside a block, 0 is the residual part, 1 the transformer, and what follows changes the resolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def sgm_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the original name of each path in a denoiser.

    Args:
        paths: all layers of diffusers' ``UNet2DConditionModel``; how many layers a level has follows from them.
    """
    paths = list(paths)
    numbers = [int(match[1]) for path in paths if (match := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", path))]
    depth = max(numbers) + 2  # layers of a level, and its change of resolution
    attentive = {match[0] for path in paths if (match := re.match(r"up_blocks\.\d+\.attentions", path))}
    return {path: _sgm_name(path, depth, attentive) for path in paths}


def _sgm_name(path: str, depth: int, attentive: set[str]) -> str:
    if path in TOP:
        return TOP[path]
    if match := re.match(r"mid_block\.(resnets\.\d|attentions\.\d)\.", path):
        return f"middle_block.{MIDDLE[match[1]]}.{_inner(path[match.end() :])}"
    match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.", path)
    if match is None:
        return path
    side, level, kind, layer = match[1], int(match[2]), match[3], int(match[4])
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * depth}.0.op"
    if kind == "upsamplers":
        place = 2 if f"up_blocks.{level}.attentions" in attentive else 1
        return f"output_blocks.{level * depth + depth - 1}.{place}.conv"
    number = level * depth + layer
    block = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
    return f"{block}.{0 if kind == 'resnets' else 1}.{_inner(path[match.end() :])}"


def _inner(rest: str) -> str:
    return RESIDUAL.get(rest, rest)
