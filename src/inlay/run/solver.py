"""The solver that draws a base's pictures."""

from __future__ import annotations

from typing import cast

from inlay.base.contract import Base
from inlay.base.sampling import PipelineSolver, Solver
from inlay.objective.prediction import Prediction
from inlay.objective.settings import Sampler
from inlay.objective.solvers import SOLVERS
from inlay.train.noise_path import noise_path


def make_solver(base: Base, sampler: Sampler, steps: int) -> Solver:
    """Return a solver by its name.

    Args:
        base: what it draws with.
        sampler: `dpm` is diffusers' own for a base that is a published pipeline, so that pictures are the same there.
        steps: steps; `heun` asks for almost twice as many predictions.

    Raises:
        ConfigError: the solver cannot follow the base's path.
    """
    if sampler == "dpm" and base.architecture.solver_of_pipeline:
        return PipelineSolver(base, steps)
    return SOLVERS[sampler](noise_path(base.architecture), cast("Prediction", base.prediction), steps)
