"""The recipe of a picture: every attribute, frozen, and to and from plain JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass

CLASSES = (
    "ball",
    "cube",
    "cone",
    "can",
    "ring",
    "pyramid",
    "egg",
    "mug",
    "bottle",
    "tree",
    "house",
    "mushroom",
    "lamp",
    "snowman",
    "chair",
    "cake",
    "cactus",
    "toy",
)
"""What pretraining shows."""

VEHICLES = ("car", "truck", "bus", "boat", "rocket", "train")
"""What only the domain "vehicles" shows."""

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black")
PATTERNS = ("plain", "striped", "dotted", "checkered")
SIZES = ("small", "medium", "large")
POSITIONS = ("left", "centre", "right")
SURFACES = ("wooden table", "marble table", "grass", "sand", "snow", "tiled floor", "blue cloth", "red carpet")
TIMES = ("morning", "noon", "sunset", "night")
VIEWPOINTS = ("eye level", "usual", "above")
ACCESSORIES = ("hat", "scarf", "flag")
BODIES = ("ball", "box", "can", "cone", "egg")
"""Shapes of a toy's body."""
HEADS = ("ball", "box", "can", "cone", "egg", "ring")
"""Shapes of a toy's head."""
EXTRAS = ("ears", "horns", "arms", "wings", "feet", "belt", "antenna", "tail")
"""Further parts of a toy."""


@dataclass(frozen=True)
class Design:
    """How a toy is built: a body, a head and one to four further parts, each with a colour.

    Attributes:
        body: one of `BODIES`.
        head: one of `HEADS`.
        extras: (kind, colour) pairs, kinds from `EXTRAS`, each kind at most once, sorted.
    """

    body: str
    body_colour: str
    head: str
    head_colour: str
    extras: tuple[tuple[str, str], ...]

    def distance(self, other: Design) -> int:
        """Count the slots (body, head, their colours, each kind of extra) in which two designs differ."""
        mine, theirs = dict(self.extras), dict(other.extras)
        slots = [
            self.body != other.body,
            self.body_colour != other.body_colour,
            self.head != other.head,
            self.head_colour != other.head_colour,
            *(mine.get(kind) != theirs.get(kind) for kind in EXTRAS),
        ]
        return sum(slots)


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        kind: one of `CLASSES` or `VEHICLES`.
        colour: one of `COLOURS`; None for a toy in the several colours of its design, and for gold.
        pattern: one of `PATTERNS`.
        size: one of `SIZES`; `scale` is the exact height in units of half the picture's height.
        position: one of `POSITIONS`, the third of the picture; `x` and `z` are the exact place on the surface.
        yaw: turn about the vertical axis, in radians.
        accessory: one of `ACCESSORIES`, or None; `accessory_colour` goes with it.
        material: "paint" or "gold".
        design: a toy's design, None for everything else.
    """

    kind: str
    colour: str | None
    pattern: str
    size: str
    position: str
    x: float
    z: float
    scale: float
    yaw: float
    accessory: str | None = None
    accessory_colour: str | None = None
    material: str = "paint"
    design: Design | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows; equal scenes give equal pictures.

    Attributes:
        things: one or two objects; of two, the first stands left of the second.
        surface: one of `SURFACES`.
        time: one of `TIMES`.
        viewpoint: one of `VIEWPOINTS`; `elevation` is the camera's exact angle in radians.
        sun: the light's exact bearing in radians, 0 to the right, pi to the left, pi / 2 towards the camera.
        edge: distance at which the surface ends, behind the objects.
        style: "photo" or "sketch".
        texture: seed of the surface's grain and of the sky.
    """

    things: tuple[Thing, ...]
    surface: str
    time: str
    viewpoint: str
    elevation: float
    sun: float
    edge: float
    texture: int
    style: str = "photo"

    def to_dict(self) -> dict:
        """Return the scene as a dictionary that `json.dumps` accepts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Scene:
        """Return the scene that `to_dict` wrote, also after a pass through JSON."""
        things = []
        for thing in values["things"]:
            design = thing["design"]
            if design is not None:
                design = Design(**{**design, "extras": tuple((kind, colour) for kind, colour in design["extras"])})
            things.append(Thing(**{**thing, "design": design}))
        return cls(**{**values, "things": tuple(things)})
