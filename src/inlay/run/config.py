"""The run file: everything that decides what a run does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal, Self, Union

from pydantic import BeforeValidator, Field, model_validator

from inlay.base.scratch import CLASS_GUIDANCE, Scratch
from inlay.base.settings import NONE, BaseSettings, PathSettings
from inlay.data.settings import DataSettings
from inlay.methods import METHODS, Full, Method
from inlay.objective.settings import Objective, Sampler
from inlay.run.denoisers import AnyDenoiser
from inlay.run.evaluation.settings import EvaluateSettings
from inlay.run.load import SHORTHANDS, config_hash
from inlay.settings import Settings
from inlay.train.settings import TrainSettings

if TYPE_CHECKING:
    AnyMethod = Method
else:
    AnyMethod = Annotated[Union[tuple(METHODS.values())], Field(discriminator="name")]  # noqa: UP007 - made at run time


def _short(section: str) -> BeforeValidator:
    """Let a section be given by its most important setting alone: `base: tabletop`, `method: lora`."""
    key = SHORTHANDS[section]
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _listed(value: object) -> object:
    """Let a list of one be given without brackets."""
    return (value,) if isinstance(value, str) else value


class PreviewSettings(Settings):
    """Pictures drawn before, during and after training, always from the same noise."""

    prompts: tuple[str, ...] | None = None
    """What to draw; by default the instance prompt or up to four of the captions."""
    pictures: Annotated[int, Field(ge=1)] = 4
    """Pictures a prompt."""
    every: Annotated[int, Field(ge=1)] | None = None
    """Steps between previews during training; null for none but before and after."""
    sampler: Sampler = "dpm"
    """`dpm` is DPM-Solver++ of order 2, `heun` the solver of EDM."""
    steps: Annotated[int, Field(ge=1)] = 25
    """Steps of the sampler; each is one call of the denoiser, with `heun` two but for the last."""
    guidance: Annotated[float, Field(ge=0)] = 7.0
    """Scale of classifier-free guidance; 1 for none."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    seed: int = 0
    """Of the initial noise."""


class Conditioning(Settings):
    """What a denoiser from scratch is told about a picture."""

    name: Literal["none", "class", "text"]
    """`none`, the number of the picture's `class`, or its caption as the base's text encoder reads it (`text`)."""
    classes: Annotated[int, Field(ge=1)] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Of `class`: the names in their order, or how many there must be; by default those that the pictures have, in
    alphabetical order."""

    @model_validator(mode="after")
    def _classes_act(self) -> Conditioning:
        if self.classes is not None and self.name != "class":
            raise ValueError(f"classes have no effect with conditioning {self.name}; leave them out")
        if isinstance(self.classes, tuple) and (len(set(self.classes)) < len(self.classes) or "" in self.classes):
            raise ValueError("classes need names that differ and are not empty")
        return self


class JobConfig(Settings, ABC):
    """What tuning and pretraining have in common."""

    base: Annotated[BaseSettings, _short("base")]
    """The pretrained model."""
    data: Annotated[DataSettings, _short("data")]
    """Pictures and captions."""
    objective: Objective = Objective()
    """What a step minimises."""
    train: TrainSettings
    """How long and how to train."""
    preview: PreviewSettings = PreviewSettings()
    """Pictures to draw on the way."""
    evaluate: EvaluateSettings | None = None
    """What to measure, when, and against what; null for nothing but the loss."""
    seed: int = 0
    """Decides initialisation, order of the pictures, noise and timesteps."""
    output: str | None = None
    """The run directory; by default `runs/` and the run file's name."""

    @property
    @abstractmethod
    def methods(self) -> tuple[Method, ...]:
        """What is attached to the base, in order."""

    @property
    @abstractmethod
    def scratch(self) -> Scratch | None:
        """A denoiser to initialise instead of the base's; None to keep that."""

    @property
    @abstractmethod
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rate of each method as it is used."""

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first method."""
        return self.learning_rates[0]

    @model_validator(mode="after")
    def _a_rate_for_each(self) -> Self:
        stated = self.train.learning_rate
        if isinstance(stated, tuple) and len(stated) != len(self.methods):
            names = ", ".join(method.name for method in self.methods)
            raise ValueError(
                f"train.learning_rate={list(stated)}: {len(stated)} rates for {len(self.methods)} methods ({names}); "
                "give one for all, or one for each"
            )
        return self

    def decisive(self) -> JobConfig:
        """Return a copy in which the settings of output, previews and logging, which change no weights, are blank."""
        watching = {"checkpoint_every", "keep_checkpoints", "validate_every", "trackers"}
        train = self.train.model_copy(update=dict.fromkeys(watching))
        # Measuring changes nothing, unless it chooses the step whose weights are kept.
        chooses = self.evaluate is not None and self.evaluate.keep_best is not None
        evaluate = self.evaluate if chooses else None
        blank = {"output": None, "preview": PreviewSettings(), "train": train, "evaluate": evaluate}
        return self.model_copy(update=blank)

    def identity(self) -> str:
        """Return the hash of all that decides the trained weights."""
        return config_hash(self.decisive())

    def content_hash(self) -> str:
        """Return the hash of all settings but where the result goes."""
        return config_hash(self.model_copy(update={"output": None}))


class RunConfig(JobConfig):
    """A tuning run."""

    method: Annotated[AnyMethod, _short("method")]
    """How the base is tuned."""
    stack: tuple[AnyMethod, ...] = ()
    """Further methods that train beside it."""
    start_from: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Saved results to go on training, instead of beginning at the base: run directories, or files that inlay wrote
    with the same settings of the method; for `lora`, `loha` and `lokr` any LoRA, LoHa or LoKr that is read, of other
    programs too, of the same or a lower rank. One for each method, in their order; the directory of a stack gives all
    of its. A whole tuned model is a `base` instead."""

    @property
    def methods(self) -> tuple[Method, ...]:
        return (self.method, *self.stack)

    @property
    def scratch(self) -> None:
        return None

    @property
    def learning_rates(self) -> tuple[float, ...]:
        stated = self.train.learning_rate
        if isinstance(stated, tuple):
            return stated
        stated = stated or self.train.optimizer.learning_rate
        return tuple(stated or method.learning_rate for method in self.methods)

    @model_validator(mode="after")
    def _stack_can_be_saved(self) -> RunConfig:
        whole = [method.name for method in self.methods if method.result == "pipeline"]
        apart = [method.name for method in self.methods if not method.merges]
        if whole and apart:
            raise ValueError(
                f"{whole[0]} saves a whole model, into which {apart[0]} cannot be merged; stack {apart[0]} with "
                "methods that are saved beside the base"
            )
        if whole and self.train.quantize is not None:
            raise ValueError(
                f"train.quantize={self.train.quantize} rounds the base's weights, which {whole[0]} saves as a whole "
                "model; leave it out, or take a method that is saved beside the base"
            )
        return self


class PretrainConfig(JobConfig):
    """Training a denoiser from scratch: of pixels, or between a base's frozen autoencoder and text encoder."""

    base: Annotated[BaseSettings, _short("base")] = BaseSettings(model=NONE)
    """Whose autoencoder gives latents, and whose text encoder reads captions; by default none, for a model of pixels
    without text."""
    denoiser: AnyDenoiser
    """The network to train. Without a `name` it is a text U-Net."""
    conditioning: Annotated[Conditioning, _short("conditioning")] | None = None
    """What the network is told about a picture: `none`, `class` or `text`; by default text for a text U-Net, else none.
    `data.caption_dropout` leaves captions or classes out, for classifier-free guidance."""
    path: Annotated[PathSettings, _short("path")] | None = None
    """How pictures turn into noise; by default as the base's schedule says, and `cosine` without a base."""

    @model_validator(mode="after")
    def _nothing_to_preserve(self) -> PretrainConfig:
        if self.train.quantize is not None:
            raise ValueError(
                f"train.quantize={self.train.quantize} is for a frozen denoiser; one from scratch trains; leave it out"
            )
        if self.data.prior is not None:
            raise ValueError(
                "data.prior keeps what a base knows of a class; a denoiser from scratch knows nothing yet; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _conditioned(self) -> PretrainConfig:
        allowed = self.denoiser.conditioned
        asked = self.conditioning or Conditioning(name="text" if "text" in allowed else "none")
        if asked.name not in allowed:
            raise ValueError(
                f"conditioning={asked.name}: denoiser {self.denoiser.name} takes {' or '.join(allowed)}; "
                + ("text needs denoiser text_unet" if asked.name == "text" else "take denoiser unet, vit or dit")
            )
        if asked.name == "text" and self.base.model == NONE:
            raise ValueError("conditioning=text needs a base, whose text encoder reads the captions; give `base`")
        if asked.name == "text" and self.path is not None and self.path.name == "flow":
            raise ValueError(
                "path=flow: a text U-Net is saved as a StableDiffusionPipeline, whose schedulers know no flow; take "
                "cosine, linear or scaled_linear, or denoiser unet, vit or dit"
            )
        _prepare(self, asked)
        return self

    @property
    def methods(self) -> tuple[Method, ...]:
        return (Full(),)

    @property
    def scratch(self) -> Scratch:
        assert self.conditioning is not None
        classes = self.conditioning.classes
        if isinstance(classes, int):
            classes = tuple(map(str, range(classes)))
        # Not to be known before the pictures are: something to build with until then.
        unknown = ("0",) if self.conditioning.name == "class" else ()
        return Scratch(
            self.denoiser.config(),
            self.conditioning.name,
            self.path,
            self.objective.prediction,
            classes or unknown,
        )

    @property
    def learning_rates(self) -> tuple[float, ...]:
        stated = self.train.learning_rate
        return stated if isinstance(stated, tuple) else (stated or self.train.optimizer.learning_rate or 1e-4,)


def _prepare(config: PretrainConfig, asked: Conditioning) -> None:
    """Write down in other sections what the conditioning means for them; the saved run file then says it.

    Raises:
        ValueError: they say otherwise.
    """
    data, own = config.data, 1.0
    if asked.name == "none":
        if data.prompt or data.caption_dropout or data.classes:
            raise ValueError(
                "an unconditional model is told nothing of a picture: leave out data.prompt, data.classes and "
                "data.caption_dropout, or give conditioning=class or text"
            )
        data = data.model_copy(update={"prompt": ""})
    elif asked.name == "class":
        if data.prompt is not None:
            raise ValueError("data.prompt has no effect with conditioning=class; leave it out")
        data = data.model_copy(update={"classes": True})
        own = CLASS_GUIDANCE if data.caption_dropout else 1.0
    prepared: dict[str, Settings] = {"conditioning": asked, "data": data}
    if asked.name != "text":
        for name, section in (("preview", config.preview), ("evaluate", config.evaluate)):
            if section is not None:
                prepared[name] = _guided(name, section, asked, own)
    for name, value in prepared.items():
        object.__setattr__(config, name, value)  # frozen for others; validation is not over yet


def _guided(name: str, section: PreviewSettings | EvaluateSettings, asked: Conditioning, own: float) -> Settings:
    """Return a section with the guidance that fits a model without text, where it states none."""
    if "guidance" not in section.model_fields_set:
        return section.model_copy(update={"guidance": own})
    if section.guidance != 1 and own == 1:
        how = "an unconditional one is never told" if asked.name == "none" else "give data.caption_dropout"
        raise ValueError(
            f"{name}.guidance={section.guidance:g} leads away from what the model draws untold; {how}, or set it to 1"
        )
    return section
