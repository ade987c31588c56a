"""The ``data`` section of a run file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from inlay.settings import Settings

TABLETOP_PARTS = "tabletop:subject/<name>, tabletop:domain/<name>/train or tabletop:train"


CLASS_IMAGES = 200
"""Class pictures where the run file does not say how many."""


class PriorSettings(Settings):
    """DreamBooth's prior preservation (arXiv 2208.12242, section 3.3).

    Beside the pictures to learn, every step shows as many pictures of their class, which the frozen base drew, and
    adds their loss: so the class's name keeps its meaning.
    """

    prompt: str
    """The class without the subject, for instance ``a photo of a dog``: the caption of the class pictures, and what
    the base is asked to draw."""
    images: Annotated[int, Field(ge=1)] | None = None
    """How many class pictures. By default 200, or with ``source`` as many as there are."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the mean loss of the class pictures."""
    source: str | None = None
    """Pictures of the class to use instead of drawing them: a folder, or another source as in ``data.source``. Where
    there are fewer than ``images``, the base draws the rest, into the cache and not into the folder."""
    steps: Annotated[int, Field(ge=1)] = 25
    """Calls of the denoiser a drawn picture."""
    guidance: Annotated[float, Field(ge=0)] = 7.0
    """Scale of classifier-free guidance of drawn pictures; 1 for none."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    seed: int = 0
    """Of the drawn pictures' noise; apart from the run's own, so that runs of several seeds share the pictures."""
    apart: bool = False
    """Take the class pictures of a micro-batch through the denoiser after the others instead of together with them:
    the same gradient, fewer activations at a time, more time. Always so with ``buckets``, where their shapes differ."""

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("prompt is empty; describe the class, for instance 'a photo of a dog'")
        return prompt

    @property
    def wanted(self) -> int | None:
        """How many class pictures; None for as many as ``source`` has."""
        return self.images or (None if self.source is not None else CLASS_IMAGES)


class MaskSettings(Settings):
    """Masked training: the loss counts in full where the mask is white, and less around it.

    A picture's mask is the file ``NAME.mask.png`` (or ``NAME-masklabel.png``) beside it, or else its own opacity; of
    the rendered world it is where its things are. Every picture must have one.
    """

    outside: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Weight where the mask is black, against 1 where it is white; then all are scaled to a mean of 1 a picture."""


class DataSettings(Settings):
    """Which pictures and captions to train on, and how to cut them."""

    source: str
    """A folder of pictures, also one inside a .zip file (``photos.zip/train``); a hub dataset (``hub:owner/name``, or
    ``owner/name`` when no such folder exists); a part of the rendered world (``tabletop:subject/<name>``,
    ``tabletop:domain/<name>/train``, ``tabletop:train``); shards, tar files of many pictures (``x-{000..009}.tar``,
    ``shards/*.tar``); or ``digits``, the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels each."""
    prompt: str | None = None
    """One caption for all pictures, for instance ``a photo of sks dog``. The pictures' own captions are then
    ignored."""
    classes: bool = False
    """Take each picture's class for its caption: from `class_column` of a metadata file or hub dataset, else the name
    of the first folder on the way to it; digits and the rendered world's shapes are known. `conditioning: class` sets
    it."""
    class_column: str = "label"
    """Column of the metadata file or of the hub dataset that holds the class."""
    caption_column: str = "text"
    """Column of the metadata file or of the hub dataset that holds the caption."""
    image_column: str = "image"
    """Column of the hub dataset that holds the picture."""
    split: str = "train"
    """Split of the hub dataset."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Use the first so many pictures only. ``tabletop:train`` has no end and takes 10,000 when this is not given."""
    resolution: Annotated[int, Field(ge=4, multiple_of=2)] | None = None
    """Side of the training pictures in pixels; by default what the base was trained with."""
    crop: Literal["center", "random"] = "center"
    """Which part of a picture that is not square (or, with buckets, not of the bucket's shape) is used. ``random``
    draws anew at every visit, so latents cannot be cached."""
    horizontal_flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a picture is mirrored at a visit."""
    background: str = "white"
    """Colour behind transparent pixels: a name or ``#rrggbb``."""
    buckets: bool = False
    """Train at several shapes of about resolution x resolution pixels in all, each picture in the nearest; every
    batch has one shape. Off: everything is cut to a square."""
    bucket_step: Annotated[int, Field(ge=8, multiple_of=8)] | None = None
    """The buckets' sides are multiples of this many pixels; by default an eighth of the resolution (64 for 512), in
    steps that the base can halve often enough."""
    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a caption, or a class, is replaced by the empty one at a visit: for classifier-free guidance."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """How often an epoch shows each picture."""
    validation: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] = 0
    """Pictures to hold out of training: a number of them, or a share between 0 and 1."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about a file that cannot be decoded: stop before training, or leave it out and list it."""
    mask: MaskSettings | None = None
    """Let the subject count more than what is around it; null for all alike."""
    prior: PriorSettings | None = None
    """Pictures of the subject's class to train on as well, so that the class is not forgotten; null for none."""

    @property
    def prior_apart(self) -> bool:
        """Whether class pictures pass the denoiser after the others: buckets give them shapes of their own."""
        return self.prior is not None and (self.prior.apart or self.buckets)

    @field_validator("source")
    @classmethod
    def _source_named(cls, source: str) -> str:
        if not source.strip():
            raise ValueError(f"data.source is empty; give a folder, hub:<dataset id>, {TABLETOP_PARTS}")
        return source

    @field_validator("background")
    @classmethod
    def _known_colour(cls, background: str) -> str:
        from PIL import ImageColor

        try:
            colour = ImageColor.getrgb(background)
        except ValueError:
            colour = ()
        if len(colour) != 3:
            raise ValueError(f"{background!r} is not an opaque colour; give a name such as white, or #rrggbb")
        return background

    @model_validator(mode="after")
    def _one_kind_of_caption(self) -> DataSettings:
        if self.classes and self.prompt is not None:
            raise ValueError(
                "prompt is one caption for all, and classes=true takes each picture's class; give one of them"
            )
        return self

    @model_validator(mode="after")
    def _subject_and_class_differ(self) -> DataSettings:
        if self.prior is not None and self.prompt == self.prior.prompt:
            raise ValueError(
                f"prompt and prior.prompt are both {self.prompt!r}; the class is called without the subject's "
                "identifier: 'a photo of sks dog' and 'a photo of a dog'"
            )
        return self

    @model_validator(mode="after")
    def _bucket_step_fits(self) -> DataSettings:
        if self.bucket_step is not None and not self.buckets:
            raise ValueError("bucket_step has no effect without buckets=true")
        if self.bucket_step is not None and self.resolution is not None and self.bucket_step > self.resolution:
            raise ValueError(f"bucket_step={self.bucket_step} is larger than resolution={self.resolution}")
        return self
