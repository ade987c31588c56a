"""The run file: everything that decides what a run does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import BeforeValidator, Field, model_validator

from inlay.base.settings import BaseSettings
from inlay.data.settings import DataSettings
from inlay.methods import METHODS, Full, Method
from inlay.objective.settings import Objective
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


class PreviewSettings(Settings):
    """Pictures drawn before, during and after training, always from the same noise."""

    prompts: tuple[str, ...] | None = None
    """What to draw; by default the instance prompt or up to four of the captions."""
    pictures: Annotated[int, Field(ge=1)] = 4
    """Pictures a prompt."""
    every: Annotated[int, Field(ge=1)] | None = None
    """Steps between previews during training; null for none but before and after."""
    steps: Annotated[int, Field(ge=1)] = 25
    """Calls of the denoiser a picture."""
    guidance: Annotated[float, Field(ge=0)] = 7.0
    """Scale of classifier-free guidance; 1 for none."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    seed: int = 0
    """Of the initial noise."""


class Denoiser(Settings):
    """A text-conditional U-Net to train from scratch: arguments of diffusers' ``UNet2DConditionModel``.

    Latent channels and text width follow from the base's autoencoder and text encoder.
    """

    sample_size: Annotated[int, Field(ge=1)]
    """Side of the latents."""
    block_out_channels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    """Width of each resolution level, finest first."""
    down_block_types: tuple[Literal["CrossAttnDownBlock2D", "DownBlock2D"], ...]
    """Kind of each level on the way down; the way up mirrors it."""
    layers_per_block: Annotated[int, Field(ge=1)] = 2
    """Residual (and transformer) blocks a level on the way down; one more on the way up."""
    attention_head_dim: Annotated[int, Field(ge=1)] = 8
    """Number of attention heads: diffusers' name for it is historical."""
    norm_num_groups: Annotated[int, Field(ge=1)] = 32
    """Groups of the group norms; must divide every width."""

    @model_validator(mode="after")
    def _consistent(self) -> Denoiser:
        if len(self.down_block_types) != len(self.block_out_channels):
            raise ValueError(
                f"{len(self.block_out_channels)} block_out_channels but {len(self.down_block_types)} down_block_types"
            )
        uneven = [width for width in self.block_out_channels if width % self.norm_num_groups]
        if uneven:
            raise ValueError(f"norm_num_groups={self.norm_num_groups} does not divide block_out_channels {uneven}")
        return self

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``UNet2DConditionModel`` apart from those that the base decides."""
        up = {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}
        return {
            **self.model_dump(mode="json"),
            "up_block_types": [up[kind] for kind in reversed(self.down_block_types)],
        }


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
    def scratch(self) -> dict[str, Any] | None:
        """Configuration of a denoiser to initialise instead of the base's; None to keep that."""

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
        return self


class PretrainConfig(JobConfig):
    """Training a denoiser from scratch between a base's frozen autoencoder and text encoder."""

    denoiser: Denoiser
    """The U-Net to train."""

    @model_validator(mode="after")
    def _nothing_to_preserve(self) -> PretrainConfig:
        if self.data.prior is not None:
            raise ValueError(
                "data.prior keeps what a base knows of a class; a denoiser from scratch knows nothing yet; leave it out"
            )
        return self

    @property
    def methods(self) -> tuple[Method, ...]:
        return (Full(),)

    @property
    def scratch(self) -> dict[str, Any] | None:
        return self.denoiser.config()

    @property
    def learning_rates(self) -> tuple[float, ...]:
        stated = self.train.learning_rate
        return stated if isinstance(stated, tuple) else (stated or 1e-4,)
