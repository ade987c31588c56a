"""Eight toys that pretraining never shows, and the sentences that ask for them."""

from __future__ import annotations

from inlay.data.tabletop.scene import Design

SUBJECT_DESIGNS: dict[str, Design] = {
    "pip": Design("ball", "yellow", "ball", "orange", (("antenna", "red"), ("feet", "blue"), ("wings", "white"))),
    "rolo": Design("box", "blue", "ball", "white", (("arms", "orange"), ("ears", "blue"), ("feet", "black"))),
    "momo": Design("egg", "pink", "box", "purple", (("ears", "yellow"), ("feet", "purple"), ("tail", "pink"))),
    "tuck": Design("can", "green", "egg", "yellow", (("arms", "green"), ("belt", "brown"), ("horns", "white"))),
    "zed": Design("cone", "purple", "can", "green", (("antenna", "yellow"), ("arms", "red"), ("belt", "white"))),
    "bibi": Design("ball", "white", "ring", "red", (("feet", "red"), ("tail", "black"), ("wings", "blue"))),
    "grit": Design("box", "brown", "cone", "red", (("belt", "yellow"), ("feet", "green"), ("wings", "orange"))),
    "noor": Design("can", "black", "ball", "pink", (("antenna", "blue"), ("ears", "pink"), ("tail", "yellow"))),
}
"""Each subject's design, by its name."""

SUBJECTS = tuple(SUBJECT_DESIGNS)
