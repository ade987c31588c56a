"""The closed list of words that captions and prompts of the world are made of."""

from __future__ import annotations

import re

from inlay.data.tabletop import captions
from inlay.data.tabletop.scene import ACCESSORIES, CLASSES, COLOURS, PATTERNS, VEHICLES

GLUE = (
    "a an the of is on in at with and made big large small two things left right to next wearing golden colourful toy"
)


def vocabulary() -> tuple[str, ...]:
    """Return every word and punctuation mark of the world's captions and evaluation prompts, sorted, lower-case.

    Words of the domains, which pretraining never shows, are among them; the subjects' names are not.
    """
    tables = (captions.ON, captions.WHEN, captions.FROM)
    phrases = [phrase for table in tables for choices in table.values() for phrase in choices]
    phrases += [*captions.WHERE.values(), *captions.OPENINGS, *captions.SKETCH_OPENINGS, GLUE]
    phrases += [*CLASSES, *VEHICLES, *COLOURS, *PATTERNS, *ACCESSORIES]
    return tuple(sorted(set(re.findall(r"[a-z]+|[^a-z\s]", " ".join(phrases))) | {":"}))
