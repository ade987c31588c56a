"""What a prompt asks of a picture, in the world's own attributes: the inverse of its captions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from inlay.data.tabletop.captions import FROM, ON, WHEN, WHERE
from inlay.data.tabletop.scene import CLASSES, COLOURS, PATTERNS, VEHICLES

_SIZES = {"small": "small", "large": "large", "big": "large"}
_STRANGE = {"golden", "sketch", "drawing", *VEHICLES}
"""Words of the domains, which no judge of the pretrained world knows."""


def asked(prompt: str) -> dict[str, str]:
    """Return what :func:`stated` does but a toy's colour: most have several, so a judge cannot look for one."""
    found = stated(prompt)
    if found.get("class") == "toy":
        found.pop("colour", None)
    return found


def stated(prompt: str) -> dict[str, str]:
    """Return the attributes that a prompt of one thing states, by name; empty where it asks for more, or for none.

    Args:
        prompt: a caption of the world, or a sentence in its manner; words that the world does not have, such as a new
            word for a subject, are passed over.

    Returns:
        Some of `class`, `colour`, `pattern`, `size`, `position`, `surface`, `time` and `viewpoint`.
    """
    text = " ".join(re.findall(r"[a-z]+", prompt.lower()))
    found: dict[str, str] = {}
    for attribute, phrases in (("surface", ON), ("time", WHEN), ("viewpoint", FROM), ("position", WHERE)):
        value, text = _taken(text, phrases)
        if value is not None:
            found[attribute] = value
    words = text.split()
    things = [word for word in words if word in CLASSES or word in VEHICLES]
    if len(things) != 1 or _STRANGE & {*words} or "two" in words:
        return {}
    before = words[: words.index(things[0])]
    found["class"] = things[0]
    for word in before:
        if word in _SIZES:
            found["size"] = _SIZES[word]
        elif word in COLOURS:
            found["colour"] = word
        elif word in PATTERNS:
            found["pattern"] = word
    return found


def _taken(text: str, phrases: Mapping[str, Iterable[str]] | Mapping[str, str]) -> tuple[str | None, str]:
    """Return whose phrase stands in a text, and the text without it; the longest phrase where several do."""
    choices = [
        (phrase, value) for value, some in phrases.items() for phrase in ((some,) if isinstance(some, str) else some)
    ]
    for phrase, value in sorted(choices, key=lambda choice: -len(choice[0])):
        shortened, times = re.subn(rf"\b{phrase}\b", " ", text)
        if times:
            return value, shortened
    return None, text
