"""How often the best reader there can be would retrieve: one who knows every scene, and how captions are worded.

Captions leave things out: "a blue ball" fits several of 64 pictures, and a picture several of 64 captions. The reader
takes what is likeliest by the chances in `inlay.data.tabletop.captions`, and nobody is right more often.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from inlay.data.tabletop import Scene
from inlay.data.tabletop.asked import stated
from inlay.data.tabletop.captions import FROM
from inlay.data.tabletop.scene import ACCESSORIES, COLOURS, Thing

RELATION = re.compile(r" (?:to the )?(left of|right of|and|next to) ")
WORN = re.compile(rf"\b(?:{'|'.join(COLOURS)}) (?:{'|'.join(ACCESSORIES)})\b")
PLACE = ("surface", "time", "viewpoint", "position")


@dataclass(frozen=True)
class Claims:
    """What a caption says, however it words it: attributes as `stated` names them, with their values."""

    things: tuple[frozenset[tuple[str, str]], ...]
    """Of each thing, also what is `worn` ("blue hat"); from left to right, where there are two."""
    place: frozenset[tuple[str, str]]
    """Of the scene, those of `PLACE`."""


def claims_of(caption: str) -> Claims:
    """Return what a caption of the parts "train" and "test" says."""
    first, *rest = RELATION.split(caption.replace("two things", ""))
    # "and" and "next to" name things from left to right.
    texts = [first] if not rest else [rest[1], first] if rest[0] == "right of" else [first, rest[1]]
    things, place = [], set()
    for text in texts:
        found = stated(text)
        place |= {(name, found.pop(name)) for name in PLACE if name in found}
        worn = WORN.search(text)
        things.append(frozenset((found | ({"worn": worn.group()} if worn else {})).items()))
    return Claims(tuple(things), frozenset(place))


def said(claim: object, truth: object, chance: float) -> float:
    """Return the chance of a claim about what is named with some chance and never wrongly."""
    if claim is None:
        return 1 - chance
    return chance if claim == truth else 0.0


def chance_of_thing(claims: Mapping[str, str], thing: Thing, detail: float, wear: float) -> float:
    """Return the chance that a caption names a thing like this; see `captions.name_thing`."""
    if claims["class"] != thing.kind:
        return 0.0
    worn = f"{thing.accessory_colour} {thing.accessory}"
    patterned = 0.06 if thing.pattern == "plain" else detail
    return (
        said(claims.get("size"), thing.size, 0.85 * detail if thing.size != "medium" else 0.0)
        * said(claims.get("colour"), thing.colour, detail if thing.colour is not None else 0.0)
        * said(claims.get("pattern"), thing.pattern, patterned if thing.colour is not None else 0.0)
        * said(claims.get("worn"), worn, wear if thing.accessory is not None else 0.0)
    )


def chance(claims: Claims, scene: Scene) -> float:
    """Return the chance that a caption of a scene makes these claims; see `captions.caption`.

    Captions too long to be allowed, which lose their last phrases, are left out of account.
    """
    if len(claims.things) != len(scene.things):
        return 0.0
    place, things = dict(claims.place), [dict(one) for one in claims.things]
    here = said(place.get("surface"), scene.surface, 0.62) * said(place.get("time"), scene.time, 0.5)
    seen = 0.6 if scene.viewpoint in FROM else 0.0
    if len(things) == 2:
        # Of the four wordings the last never tells the viewpoint, and the others seldom.
        here *= said(place.get("viewpoint"), scene.viewpoint, 0.85 * 0.4 * seen)
        pairs = list(zip(things, scene.things, strict=True))
        return here * sum(
            share * math.prod(chance_of_thing(*pair, detail, 0.5) for pair in pairs)
            for share, detail in ((0.2, 0.5), (0.8, 0.8))
        )
    (named,), (thing,) = things, scene.things
    here *= said(place.get("viewpoint"), scene.viewpoint, seen)
    here *= said(place.get("position"), thing.position, 0.15 if thing.position == "centre" else 0.5)
    full = 0.86 * here * chance_of_thing(named, thing, 0.85, 1.0)
    if place or named.keys() - {"class", "colour"} or named["class"] != thing.kind:
        return full
    return full + 0.14 * said(named.get("colour"), thing.colour, 0.5 if thing.colour is not None else 0.0)


def best_retrieval(captions: list[str], scenes: list[Scene], groups: list[list[int]]) -> dict:
    """Return the reader's top-1 retrieval within groups of indices, both ways; of equals it picks one blindly."""

    def right(scores: np.ndarray) -> float:
        best = scores == scores.max(1, keepdims=True)
        return float((np.diag(best) / best.sum(1)).sum())

    claims = [claims_of(text) for text in captions]
    right_text = right_image = 0.0
    for group in groups:
        scores = np.array([[chance(claims[text], scenes[picture]) for text in group] for picture in group])
        right_text += right(scores)
        right_image += right(scores.T)
    total = sum(map(len, groups))
    return {"image_to_text": right_text / total, "text_to_image": right_image / total}
