"""Scenes at random: what pretraining, the domains and the subjects show, each from (seed, part, index) alone."""

from __future__ import annotations

import math
from random import Random

from inlay.data.tabletop.scene import (
    ACCESSORIES,
    BODIES,
    CLASSES,
    COLOURS,
    EXTRAS,
    HEADS,
    PATTERNS,
    SIZES,
    SURFACES,
    TIMES,
    VEHICLES,
    Design,
    Scene,
    Thing,
)
from inlay.data.tabletop.subjects import SUBJECT_DESIGNS, SUBJECTS

SCALES = {"small": (0.50, 0.60), "medium": (0.72, 0.82), "large": (0.98, 1.10)}
ELEVATIONS = {"eye level": (0.05, 0.11), "usual": (0.24, 0.36), "above": (0.54, 0.72)}
PLACES = {"left": (-0.52, -0.40), "centre": (-0.06, 0.06), "right": (0.40, 0.52)}
APART = 4
"""Slots in which a toy of pretraining differs at least from every subject."""
TOY_SCALE = 0.88
"""Toys are built higher than one unit."""
VEHICLE_SCALE = 0.85
"""Vehicles are built longer than one unit."""
HATLESS = ("ring", "bottle", "lamp", "cone", "pyramid", "chair", "cake", "house", *VEHICLES)
"""Things that wear no hat and no scarf; a flag stands on anything."""


def draw_design(draw: Random) -> Design:
    """Return a toy's design that is far from every subject's."""
    while True:
        kinds = sorted(draw.sample(EXTRAS, draw.choice((1, 2, 2, 3))))
        body, head = draw.sample(COLOURS, 2)
        extras = tuple((kind, draw.choice(COLOURS)) for kind in kinds)
        design = Design(draw.choice(BODIES), body, draw.choice(HEADS), head, extras)
        if all(design.distance(subject) >= APART for subject in SUBJECT_DESIGNS.values()):
            return design


def draw_thing(draw: Random, kinds: tuple[str, ...], position: str, pair: bool, material: str = "paint") -> Thing:
    """Return a thing of one of the kinds at one of `inlay.data.tabletop.scene.POSITIONS`."""
    kind = "toy" if "toy" in kinds and draw.random() < 0.18 else draw.choice(kinds)
    design = draw_design(draw) if kind == "toy" else None
    colour = None if kind == "toy" and draw.random() < 0.6 else draw.choice(COLOURS)
    if kind == "tree" and draw.random() < 0.35:
        colour = "green"
    if kind == "snowman" and draw.random() < 0.5:
        colour = "white"
    pattern = draw.choice(PATTERNS) if colour is not None and kind != "snowman" and draw.random() < 0.55 else "plain"
    if material == "gold":
        colour, pattern = None, "plain"
    size = draw.choice(("small", "medium")) if pair else draw.choice(SIZES)
    low, high = PLACES[position]
    accessory = None
    if draw.random() < (0.45 if kind in ("toy", "snowman") else 0.12):
        accessory = "flag" if kind in HATLESS else draw.choice(ACCESSORIES)
    factor = TOY_SCALE if kind == "toy" else VEHICLE_SCALE if kind in VEHICLES else 1.0
    shown = [colour] if colour is not None else []
    return Thing(
        kind=kind,
        colour=colour,
        pattern=pattern,
        size=size,
        position=position,
        x=draw.uniform(low, high) * (0.86 if size == "large" else 1.0),
        z=draw.uniform(-0.2, 0.2),
        scale=draw.uniform(*SCALES[size]) * (0.88 if accessory else 1.0) * factor,
        yaw=draw.uniform(-0.6, 0.6),
        accessory=accessory,
        accessory_colour=draw.choice([c for c in COLOURS if c not in shown]) if accessory else None,
        material=material,
        design=design,
    )


def draw_around(draw: Random, things: tuple[Thing, ...], surface: str, time: str, viewpoint: str, style: str) -> Scene:
    """Return a scene of given things and attributes, everything else at random."""
    left = draw.random() < 0.5
    bearing = draw.uniform(0.0, 0.6)
    low, high = ELEVATIONS[viewpoint]
    return Scene(
        things=things,
        surface=surface,
        time=time,
        viewpoint=viewpoint,
        elevation=draw.uniform(low, high),
        sun=math.pi - bearing if left else bearing,
        edge=draw.uniform(1.2, 2.0),
        texture=draw.randrange(10_000),
        style=style,
    )


def draw_scene(draw: Random, kinds: tuple[str, ...] = CLASSES, style: str = "photo", material: str = "paint") -> Scene:
    """Return a scene with one or two things."""
    if draw.random() < 0.3:
        positions = ("left", "right")
        one, two = (draw_thing(draw, kinds, position, True, material) for position in positions)
        things = (one, two)
    else:
        position = draw.choice(("left", "centre", "centre", "centre", "right"))
        things = (draw_thing(draw, kinds, position, False, material),)
    viewpoint = draw.choice(("usual", "usual", "usual", "eye level", "above"))
    return draw_around(draw, things, draw.choice(SURFACES), draw.choice(TIMES), viewpoint, style)


def draw_subject(draw: Random, name: str, index: int) -> Scene:
    """Return the scene of one of a subject's five pictures: other surface, light and view each time."""
    thing = Thing(
        kind="toy",
        colour=None,
        pattern="plain",
        size="large",
        position="centre",
        x=draw.uniform(*PLACES["centre"]),
        z=draw.uniform(-0.1, 0.1),
        scale=draw.uniform(*SCALES["large"]) * TOY_SCALE,
        yaw=draw.uniform(-0.6, 0.6),
        design=SUBJECT_DESIGNS[name],
    )
    surface = SURFACES[(SUBJECTS.index(name) + 3 * index) % len(SURFACES)]
    viewpoint = ("usual", "usual", "eye level", "above", "usual")[index]
    return draw_around(
        draw, (thing,), surface, ("noon", "morning", "sunset", "noon", "night")[index], viewpoint, "photo"
    )
