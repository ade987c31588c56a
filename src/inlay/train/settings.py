"""The run file's ``train`` section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from inlay.errors import ConfigError
from inlay.settings import Settings
from inlay.train.optimizers import AdamW, Optimizer
from inlay.train.precision import Precision, Quantized
from inlay.train.profiles import LONGEST
from inlay.train.schedules import LearningRateSchedule


class Ema(Settings):
    """An exponential moving average of the trained weights; previews and the result use it. The name can be left
    out."""

    name: Literal["exponential"] = "exponential"
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Share of the old average that each step keeps."""
    warmup: bool = True
    """Begin with a smaller decay, n / (n + 9) at step n."""


class PowerEma(Settings):
    """Averages whose length is a share of the training so far (EDM2, arXiv 2312.02696). `inlay average` makes one
    of any other length after the run."""

    name: Literal["power"] = "power"
    sigma_rel: Annotated[tuple[Annotated[float, Field(gt=0, le=LONGEST)], ...], Field(min_length=1)] = (0.05, 0.10)
    """Standard deviation of each average's profile over the steps done. Previews and the result use the first; two are
    enough to make others from. Each takes as much memory as the trained weights."""
    snapshots: Annotated[int, Field(ge=1)] = 16
    """How many times in the run the averages are stored, evenly spread, in the folder `averages` of the run directory;
    where only the clock ends the run, between half as many and so many."""

    @model_validator(mode="after")
    def _lengths_differ(self) -> PowerEma:
        if len(set(self.sigma_rel)) < len(self.sigma_rel):
            raise ValueError(f"sigma_rel={list(self.sigma_rel)}: the same length twice; give different ones")
        return self


def _named(value: Any) -> Any:
    """Let the exponential average go without a name, as it is mostly written."""
    return {"name": "exponential", **value} if isinstance(value, dict) else value


class TrainSettings(Settings):
    """How long and how to train. The first budget that is spent ends the run."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the pictures, `data.repeats` counted in."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Time in the training loop, over all sittings of a resumed run."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Pictures an optimizer step, over all processes and micro-batches: the result does not depend on how they are
    spread."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Micro-batches into which each process cuts its share of a batch, to save memory."""
    learning_rate: (
        Annotated[float, Field(gt=0)] | Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None
    ) = None
    """One for all methods, or a list: the method's, then one for each of the stack. By default what each method
    recommends (see `inlay methods`), or the optimizer."""
    schedule: LearningRateSchedule = LearningRateSchedule()
    """How the learning rate changes."""
    optimizer: Optimizer = AdamW()
    """What turns gradients into steps: `adamw`, `adafactor`, `muon`, `prodigy` or `schedule_free`, by its name or with
    settings."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient of all trained parameters together; null for no clipping."""
    precision: Precision = "fp32"
    """Arithmetic of the denoiser. With bf16 and fp16 frozen weights are kept in it too; trained ones stay float32."""
    quantize: Quantized | None = None
    """Keep the denoiser's frozen weights as 8-bit integers with a scale for each output channel: half the memory of
    bf16. They are rounded once, by up to 0.4 % of a channel's largest, and computed with in `precision`. Not where the
    base's own weights train."""
    gradient_checkpointing: bool = False
    """Compute the denoiser's activations twice instead of keeping them."""
    ema: Annotated[Ema | PowerEma, Field(discriminator="name"), BeforeValidator(_named)] | None = None
    """Average the weights; null for not."""
    checkpoint_every: Annotated[int, Field(ge=1)] | None = 250
    """Steps between checkpoints, from which a stopped run goes on; null for none but at a graceful stop."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """How many of the latest checkpoints are kept."""
    validate_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between measurements of the loss on held-out pictures (`data.validation`); by default ten a run."""
    trackers: tuple[str, ...] | None = None
    """Accelerate's trackers to log to, by name; by default TensorBoard where it is installed."""

    @model_validator(mode="after")
    def _budget(self) -> TrainSettings:
        if self.steps is None and self.epochs is None and self.minutes is None:
            raise ValueError("give a budget: steps, epochs or minutes")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be cut into accumulate={self.accumulate} equal parts"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_fits(self) -> TrainSettings:
        name, rate = self.optimizer.name, self.learning_rate
        if self.optimizer.averages and self.ema is not None:
            raise ValueError(f"optimizer={name} averages the weights itself; leave out ema")
        if self.optimizer.averages and self.schedule.name != "constant":
            raise ValueError(
                f"optimizer={name} is there to need no schedule={self.schedule.name}; allowed: constant, with a warm-up"
            )
        if self.optimizer.finds_rate and isinstance(rate, tuple) and len(set(rate)) > 1:
            raise ValueError(f"optimizer={name} finds one rate for all; give one learning_rate, not {list(rate)}")
        return self

    @property
    def averages(self) -> int:
        """How many averages of the weights are kept beside them."""
        return len(self.ema.sigma_rel) if isinstance(self.ema, PowerEma) else int(self.ema is not None)

    def micro_batch(self, processes: int) -> int:
        """Return how many pictures go through the denoiser together.

        Raises:
            ConfigError: the batch cannot be spread evenly over the processes and micro-batches.
        """
        pieces = processes * self.accumulate
        if self.batch_size % pieces:
            raise ConfigError(
                f"train.batch_size={self.batch_size} cannot be spread over {processes} processes x {self.accumulate} "
                f"micro-batches; give a multiple of {pieces}"
            )
        return self.batch_size // pieces

    def total_steps(self, images_per_epoch: int) -> int | None:
        """Return after how many optimizer steps the run ends, None when only the clock ends it."""
        limits = []
        if self.steps is not None:
            limits.append(self.steps)
        if self.epochs is not None:
            limits.append(max(1, round(self.epochs * images_per_epoch / self.batch_size)))
        return min(limits, default=None)
