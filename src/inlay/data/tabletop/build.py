"""From a thing's attributes to its parts, with what it wears."""

from __future__ import annotations

from dataclasses import replace

from inlay.data.tabletop.parts import GOLD, PAINTS, RGB, SECOND, WHITE, Body, Coat, Part, tilt
from inlay.data.tabletop.scene import Thing
from inlay.data.tabletop.shapes import Ring, box, can
from inlay.data.tabletop.things import MAKERS
from inlay.data.tabletop.toys import toy
from inlay.data.tabletop.vehicles import VEHICLE_MAKERS


def accessory_parts(kind: str, paint: RGB, body: Body) -> list[Part]:
    """Return the parts of a hat, a scarf or a flag that fits a thing."""
    if kind == "hat":
        radius = max(body.head, 0.11)
        brim = Part(can(radius * 1.65, 0.045), (0, body.top - 0.02, 0), paint, shine=0.15)
        crown = Part(can(radius, radius * 1.3 + 0.06), (0, body.top + radius * 0.65, 0), paint, shine=0.15)
        band = Part(can(radius * 1.05, 0.05), (0, body.top + 0.05, 0), (0.12, 0.12, 0.14), shine=0.15)
        return [brim, crown, band]
    if kind == "scarf":
        end = tilt(x=0.12, z=0.12)
        return [
            Part(Ring(body.collar, 0.062), (0, body.neck, 0), paint, shine=0.1),
            Part(box(0.12, 0.34, 0.05), (0.1, body.neck - 0.16, body.collar + 0.03), paint, turn=end, shine=0.1),
        ]
    pole = Part(can(0.022, 0.5), (0, body.top + 0.22, 0), (0.85, 0.85, 0.85))
    return [pole, Part(box(0.34, 0.22, 0.02), (0.18, body.top + 0.35, 0), paint, shine=0.1)]


def build(thing: Thing) -> list[Part]:
    """Return all parts of a thing with what it wears, in its own frame: front towards +z, about one unit high."""
    coat = None
    if thing.material == "gold":
        coat = Coat(GOLD, GOLD, "plain")
    elif thing.colour is not None:
        coat = Coat(PAINTS[thing.colour], SECOND.get(thing.colour, WHITE), thing.pattern)
    if thing.design is not None:
        body = toy(thing.design, coat)
    else:
        assert coat is not None, "only a toy has no colour of its own"
        body = {**MAKERS, **VEHICLE_MAKERS}[thing.kind](coat)
    parts = list(body.parts)
    if thing.material == "gold":
        parts = [replace(part, paint=GOLD, glow=0.0, shine=1.0, metal=True) for part in parts]
    if thing.accessory is not None and thing.accessory_colour is not None:
        parts += accessory_parts(thing.accessory, PAINTS[thing.accessory_colour], body)
    return parts
