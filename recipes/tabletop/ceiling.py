"""How often the best reader there can be would retrieve: one who knows every scene, and how captions are worded.

Captions leave things out: "a blue ball" fits several of 64 pictures, and a picture several of 64 captions. The reader
takes what is likeliest by the chances in `inlay.data.tabletop.captions`, and nobody is right more often.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from inlay.data.tabletop import Scene
from inlay.data.tabletop.captions import FROM, ON, WHEN, WHERE
from inlay.data.tabletop.scene import ACCESSORIES, CLASSES, COLOURS, PATTERNS, Thing

RELATION = re.compile(r" (?:to the )?(left of|right of|and|next to) ")
VALUES = {
    phrase: (name, value)
    for name, table in {"surface": ON, "time": WHEN, "viewpoint": FROM, "position": WHERE}.items()
    for value, phrases in table.items()
    for phrase in ([phrases] if isinstance(phrases, str) else phrases)
}
PHRASE = re.compile("|".join(rf"\b{phrase}\b" for phrase in sorted(VALUES, key=len, reverse=True)))
"""The longest first: "on a table made of wood" before "on a table"."""


@dataclass(frozen=True)
class ThingClaims:
    """What a caption says of one thing; None where it says nothing."""

    kind: str
    size: str | None
    colour: str | None
    pattern: str | None
    accessory: tuple[str, str] | None
    """What is worn, and its colour."""


@dataclass(frozen=True)
class Claims:
    """What a caption says, however it words it."""

    things: tuple[ThingClaims, ...]
    """From left to right, where there are two."""
    place: frozenset[tuple[str, str]]
    """Surface, time, viewpoint and position, as far as they are named."""


def claims_of_thing(text: str) -> ThingClaims:
    """Return what a phrase such as "a large red mug with a blue hat" says."""
    words = text.split()
    kind = next(word for word in words if word in CLASSES)
    before, after = words[: words.index(kind)], words[words.index(kind) + 1 :]

    def named(allowed: tuple[str, ...]) -> str | None:
        return next((word for word in before if word in allowed), None)

    size = named(("small", "large", "big"))
    worn = next(((word, after[place - 1]) for place, word in enumerate(after) if word in ACCESSORIES), None)
    return ThingClaims(kind, "large" if size == "big" else size, named(COLOURS), named(PATTERNS), worn)


def claims_of(caption: str) -> Claims:
    """Return what a caption of the parts "train" and "test" says."""
    place = frozenset(VALUES[phrase] for phrase in PHRASE.findall(caption))
    first, relation, *second = [*RELATION.split(PHRASE.sub("", caption)), ""]
    if not relation:
        return Claims((claims_of_thing(first),), place)
    things = claims_of_thing(first), claims_of_thing(second[0])
    return Claims(things[::-1] if relation == "right of" else things, place)


def said(claim: object, truth: object, chance: float) -> float:
    """Return the chance of a claim about what is named with some chance and never wrongly."""
    if claim is None:
        return 1 - chance
    return chance if claim == truth else 0.0


def chance_of_thing(claims: ThingClaims, thing: Thing, detail: float, wear: float) -> float:
    """Return the chance that a caption names a thing like this; see `captions.name_thing`."""
    if claims.kind != thing.kind:
        return 0.0
    plain = thing.pattern == "plain"
    worn = None if thing.accessory is None else (thing.accessory, thing.accessory_colour)
    return (
        said(claims.size, thing.size, 0.85 * detail if thing.size != "medium" else 0.0)
        * said(claims.colour, thing.colour, detail if thing.colour is not None else 0.0)
        * said(claims.pattern, thing.pattern, (0.06 if plain else detail) if thing.colour is not None else 0.0)
        * said(claims.accessory, worn, wear if worn is not None else 0.0)
    )


def chance(claims: Claims, scene: Scene) -> float:
    """Return the chance that a caption of a scene makes these claims; see `captions.caption`.

    Captions too long to be allowed, which lose their last phrases, are left out of account.
    """
    if len(claims.things) != len(scene.things):
        return 0.0
    place = dict(claims.place)
    here = said(place.get("surface"), scene.surface, 0.62) * said(place.get("time"), scene.time, 0.5)
    seen = 0.6 if scene.viewpoint in FROM else 0.0
    if len(scene.things) == 2:
        # Of the four wordings the last never tells the viewpoint, and the others seldom.
        here *= said(place.get("viewpoint"), scene.viewpoint, 0.85 * 0.4 * seen)
        pairs = list(zip(claims.things, scene.things, strict=True))
        return here * sum(
            share * np.prod([chance_of_thing(*pair, detail, 0.5) for pair in pairs])
            for share, detail in ((0.2, 0.5), (0.8, 0.8))
        )
    (said_of,), (thing,) = claims.things, scene.things
    here *= said(place.get("viewpoint"), scene.viewpoint, seen)
    here *= said(place.get("position"), thing.position, 0.15 if thing.position == "centre" else 0.5)
    full = here * chance_of_thing(said_of, thing, 0.85, 1.0)
    if claims.place or said_of.size or said_of.pattern or said_of.accessory or said_of.kind != thing.kind:
        return 0.86 * full
    return 0.86 * full + 0.14 * said(said_of.colour, thing.colour, 0.5 if thing.colour is not None else 0.0)


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
