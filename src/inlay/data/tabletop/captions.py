"""Exact captions in plain lower-case English: they may leave things out, and never say what is not so."""

from __future__ import annotations

from random import Random

from inlay.data.tabletop.scene import Scene, Thing

ON = {
    "wooden table": ("on a wooden table", "on a table made of wood"),
    "marble table": ("on a marble table", "on a table made of marble"),
    "grass": ("on grass", "on the grass"),
    "sand": ("on sand", "on the sand"),
    "snow": ("on snow", "in the snow"),
    "tiled floor": ("on a tiled floor", "on a floor with tiles"),
    "blue cloth": ("on a blue cloth", "on a cloth"),
    "red carpet": ("on a red carpet", "on a carpet"),
}
WHEN = {
    "morning": ("in the morning", "in morning light"),
    "noon": ("at noon", "in bright noon light"),
    "sunset": ("at sunset", "in sunset light"),
    "night": ("at night", "at night by moonlight"),
}
FROM = {
    "eye level": ("at eye level", "seen at eye level"),
    "above": ("from above", "seen from above"),
}
WHERE = {"left": "on the left", "centre": "in the centre", "right": "on the right"}
OPENINGS = ("", "", "a photo of ", "a photo of ", "a picture of ", "there is ")
SKETCH_OPENINGS = ("a pencil sketch of ", "a pencil sketch of ", "a sketch of ", "a pencil drawing of ")

LONGEST = 24
"""Words in the longest caption."""


def article(words: str) -> str:
    """Return the words with "a" or "an" before them."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def name_thing(thing: Thing, draw: Random, wear: float = 1.0, detail: float = 0.85) -> str:
    """Return a thing's name with its article, e.g. "a large red striped mug wearing a blue hat".

    Args:
        thing: what to name.
        draw: for the choice of what to say.
        wear: the chance that an accessory is named.
        detail: the chance that size, colour and pattern are each named.
    """
    words = []
    if thing.size != "medium" and draw.random() < detail * 0.85:
        words.append(thing.size if thing.size == "small" else draw.choice(("large", "large", "big")))
    if thing.material == "gold":
        words.append("golden")
    elif thing.colour is not None:
        named = draw.random() < detail
        patterned = thing.pattern != "plain" and draw.random() < detail
        if patterned and named and draw.random() < 0.3:
            words += [thing.pattern, thing.colour]
        else:
            words += [thing.colour] * named + [thing.pattern] * patterned
        if thing.pattern == "plain" and draw.random() < 0.06:
            words.append("plain")
    elif draw.random() < 0.3:
        words.append("colourful")
    words.append(thing.kind)
    phrase = article(" ".join(words))
    if thing.accessory is not None and draw.random() < wear:
        item = article(f"{thing.accessory_colour} {thing.accessory}")
        phrase += f" with {item}" if thing.accessory == "flag" else f" {draw.choice(('wearing', 'with'))} {item}"
    return phrase


def caption(scene: Scene, draw: Random) -> str:
    """Return a true caption of the scene, worded by `draw`."""
    opening = draw.choice(SKETCH_OPENINGS if scene.style == "sketch" else OPENINGS)
    surface = draw.choice(ON[scene.surface]) if draw.random() < 0.62 else ""
    when = draw.choice(WHEN[scene.time]) if draw.random() < 0.5 else ""
    view = draw.choice(FROM[scene.viewpoint]) if scene.viewpoint in FROM and draw.random() < 0.6 else ""
    if len(scene.things) == 2:
        text = _pair(scene, draw, opening, surface, when, view, wear=0.5)
        return text if len(text.split()) <= LONGEST else _pair(scene, draw, opening, surface, "", "", wear=0.0)
    thing = scene.things[0]
    if draw.random() < 0.14:  # the plain form
        brief = thing.kind if draw.random() < 0.5 or thing.colour is None else f"{thing.colour} {thing.kind}"
        if thing.material == "gold":
            brief = f"golden {thing.kind}"
        return opening + article(brief)
    named = name_thing(thing, draw)
    where = WHERE[thing.position] if draw.random() < (0.5 if thing.position != "centre" else 0.15) else ""
    if surface and draw.random() < 0.1 and not opening:
        text = _join(f"{surface} there is {named}", where, when, view)
        return text
    return _join(opening + named, where, surface, when, view)


def _pair(scene: Scene, draw: Random, opening: str, surface: str, when: str, view: str, wear: float) -> str:
    """Return a caption of two things that may state which is on which side."""
    detail = 0.5 if draw.random() < 0.2 else 0.8
    first, second = (name_thing(thing, draw, wear, detail) for thing in scene.things)
    form = draw.random()
    if form < 0.35:
        relation = f"{first} {draw.choice(('left of', 'to the left of'))} {second}"
    elif form < 0.7:
        relation = f"{second} {draw.choice(('right of', 'to the right of'))} {first}"
    elif form < 0.85:
        relation = f"{first} {draw.choice(('and', 'next to'))} {second}"
    else:
        start = opening if scene.style == "sketch" else ""
        return _join(_join(start + "two things", surface) + f": {first} left of {second}", when)
    return _join(opening + relation, surface, when, view if draw.random() < 0.4 else "")


def _join(*phrases: str) -> str:
    """Join what is not empty, leaving out the last phrases where the sentence would grow too long."""
    kept: list[str] = []
    for phrase in phrases:
        if phrase and (not kept or len(" ".join([*kept, phrase]).split()) <= LONGEST):
            kept.append(phrase)
    return " ".join(kept)
