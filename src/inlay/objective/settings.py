"""The run file's ``objective`` section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field, model_validator

from inlay.errors import ConfigError
from inlay.objective.prediction import Prediction
from inlay.objective.timesteps import LossSecondMoment, TimestepSampling, Uniform
from inlay.objective.weighting import MultiTask, Plain, Uncertainty, Weighting, weight_table
from inlay.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from inlay.objective.path import Path


Sampler = Literal["dpm", "heun"]
"""How pictures are drawn; see :mod:`inlay.objective.solvers`."""


class Objective(Settings):
    """What a training step minimises: the error of a prediction, weighted by timestep, at drawn timesteps."""

    prediction: Literal["auto"] | Prediction = "auto"
    """What the model's output is compared with; `auto` is what the base was trained to predict."""
    weighting: Weighting = Plain()
    """How much the error counts at each timestep."""
    weight_floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The weight never falls below this. Not from a publication: with zero terminal SNR, weightings that vanish at the
    noise end can keep a v model from learning very dark or very bright pictures."""
    timesteps: TimestepSampling = Uniform()
    """How timesteps are drawn."""

    @model_validator(mode="after")
    def _floor_acts(self) -> Objective:
        if self.weight_floor and isinstance(self.weighting, Plain):
            raise ValueError("weight_floor does nothing with the plain weighting, which is 1 everywhere; leave it at 0")
        if self.weight_floor and self.adapts:
            raise ValueError(
                f"weight_floor bounds weights that are known beforehand; those of {self.weighting.name} are found "
                "while training; leave it at 0"
            )
        return self

    @model_validator(mode="after")
    def _one_adapts(self) -> Objective:
        if self.adapts and isinstance(self.timesteps, LossSecondMoment):
            raise ValueError(
                f"timesteps loss_second_moment goes by losses whose weights stay; those of {self.weighting.name} "
                "change while training; take another sampling or another weighting"
            )
        return self

    @property
    def adapts(self) -> bool:
        """Whether the weights change while training."""
        return isinstance(self.weighting, (Uncertainty, MultiTask))

    def resolved(self, base_prediction: str) -> Objective:
        """Return this objective with ``auto`` replaced by what the base predicts.

        Args:
            base_prediction: ``prediction_type`` of the base's scheduler.

        Raises:
            ConfigError: the base predicts something that has no objective here.
        """
        if self.prediction != "auto":
            return self
        if base_prediction not in get_args(Prediction):
            raise ConfigError(
                f"the base predicts {base_prediction!r}, which objective.prediction=auto cannot follow; "
                f"allowed: {', '.join(get_args(Prediction))}"
            )
        return self.model_copy(update={"prediction": base_prediction})

    def weight_table(self, path: Path) -> Tensor:
        """Return the weight on the prediction's error at every timestep, float32 [T]; call it early to refuse early.

        Raises:
            ConfigError: weighting, prediction and path do not fit; see :func:`inlay.objective.weighting.weight`.
            ValueError: the prediction is still ``auto``.
        """
        if self.prediction == "auto":
            raise ValueError("resolve the objective against the base first: objective.resolved(prediction_type)")
        return weight_table(self.weighting, self.prediction, path).clamp(min=self.weight_floor)

    def weights(self, path: Path, t: Tensor) -> Tensor:
        """Return the weights of a batch, float32 [B] on the CPU; raises as :meth:`weight_table`."""
        return self.weight_table(path)[t.cpu()]
