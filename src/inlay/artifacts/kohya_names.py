"""Names of layers in the files of kohya and LyCORIS: the path with "_" for ".", behind a prefix for the part.

The way back is not in the name, since paths have "_" of their own: it is looked up among the layers of the model.
"""

from __future__ import annotations

from inlay.artifacts.blueprint import Blueprint
from inlay.artifacts.sgm import sgm_names

PREFIXES = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
STANDALONE = "lycoris_"
"""LyCORIS' own prefix for any part, where it is not used through kohya's scripts. ComfyUI does not know it."""


def kohya_names(blueprint: Blueprint) -> dict[str, str]:
    """Return every layer's name in kohya's files."""
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
    if blueprint.xl:
        prefixes |= {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    inside = {layer: layer.partition(".")[2] for layer in blueprint.shapes}
    if blueprint.xl:
        unet = [layer for layer in inside if layer.startswith("unet.")]
        original = sgm_names(inside[layer] for layer in unet)
        inside |= {layer: original[inside[layer]] for layer in unet}
    return {layer: prefixes[layer.partition(".")[0]] + path.replace(".", "_") for layer, path in inside.items()}


def layers_by_name(blueprint: Blueprint) -> dict[str, str]:
    """Return the layer behind each name that files of this model may have, other spellings included.

    Spellings are kohya's own; diffusers' names where kohya has the original code's; LyCORIS' own prefix.
    """
    names = kohya_names(blueprint)
    found = {name: layer for layer, name in names.items()}
    for layer in names:
        part, _, path = layer.partition(".")
        flat = path.replace(".", "_")
        if part == "unet" and blueprint.xl:
            found.setdefault(f"lora_unet_{flat}", layer)
        if part != "text_encoder_2":
            found.setdefault(STANDALONE + flat, layer)
            found.setdefault(STANDALONE + flat.removeprefix("text_model_"), layer)
    return found
