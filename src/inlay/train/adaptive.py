"""What of a run's objective changes while it trains, in the form in which the loop takes it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from inlay.objective.live import MultiTaskWeighting
from inlay.train.diffusion import Diffusion
from inlay.train.gradients import Compared, bin_gradients
from inlay.train.precision import Precision


class AdaptiveObjective:
    """A diffusion objective's state: learned uncertainty, multi-task weights, the latest losses of timesteps."""

    def __init__(
        self,
        diffusion: Diffusion,
        parameters: Mapping[str, nn.Parameter],
        accelerator: Accelerator,
        precision: Precision,
    ):
        """Bind the objective to what trains.

        Args:
            diffusion: has the live objective.
            parameters: what trains, by name.
            accelerator: of the run.
            precision: of the run.

        Raises:
            ConfigError: the objective names parameters that do not train.
        """
        self._diffusion, self._live = diffusion, diffusion.live
        self._accelerator = accelerator
        self._precision: Precision = precision
        self._multitask = self._live.weighting if isinstance(self._live.weighting, MultiTaskWeighting) else None
        if self._multitask is not None:
            scheme = self._multitask.settings
            self._compared = Compared(parameters, scheme.parameters, scheme.numbers, diffusion.seed)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        return self._live.optimizer

    def before_step(self, step: int) -> None:
        if self._multitask is None or step % self._multitask.settings.every:
            return
        scheme = self._multitask.settings
        gradients = bin_gradients(
            self._diffusion,
            self._compared,
            scheme.bins,
            scheme.samples,
            scheme.samples,
            step,
            self._accelerator,
            self._precision,
        )
        self._multitask.solve(gradients @ gradients.T)

    def after_step(self) -> None:
        self._live.observe(self._gathered)

    def state(self) -> dict[str, Tensor]:
        return self._live.state()

    def load(self, state: dict[str, Tensor]) -> None:
        self._live.load(state)

    def _gathered(self, rows: Tensor) -> Tensor:
        if self._accelerator.num_processes == 1:
            return rows
        gathered = self._accelerator.gather(rows)
        assert isinstance(gathered, Tensor)
        return gathered
