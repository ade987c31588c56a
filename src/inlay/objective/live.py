"""One run's objective with all that it learns, remembers or computes anew while the run goes on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from inlay.errors import ArtifactError
from inlay.objective.importance import LossHistory
from inlay.objective.multitask import SOLVERS, bin_of
from inlay.objective.path import Path
from inlay.objective.settings import Objective
from inlay.objective.timesteps import LossSecondMoment
from inlay.objective.uncertainty import LogVariance
from inlay.objective.weighting import MultiTask, Uncertainty


class LiveWeighting(ABC):
    """The weights as they are now. A loss is error * weight + offset."""

    @abstractmethod
    def weights(self) -> Tensor:
        """Return the present weight on the prediction's error at every timestep, float32 [T], without a graph."""

    @abstractmethod
    def terms(self, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return weights [B] and, where something is learned, what is added to the loss [B], both with a graph.

        Args:
            t: int64 [B] on the CPU.
        """

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what the weighting learns by gradient, by name."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return all that decides :meth:`terms` and is not in the settings; live tensors, not copies."""

    @abstractmethod
    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` returned."""


class FixedWeighting(LiveWeighting):
    """A table."""

    def __init__(self, table: Tensor):
        """Keep the weights, float32 [T]."""
        self._table = table

    def weights(self) -> Tensor:
        return self._table

    def terms(self, t: Tensor) -> tuple[Tensor, None]:
        return self._table[t], None

    def parameters(self) -> dict[str, nn.Parameter]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None: ...


class LearnedWeighting(LiveWeighting):
    """A table over e^u, and u added (Karras et al. 2024, arXiv 2312.02696, equation 21)."""

    def __init__(self, table: Tensor, log_variance: LogVariance):
        """Keep the weights, float32 [T], and the network."""
        self._table, self.log_variance = table, log_variance

    @torch.no_grad()
    def weights(self) -> Tensor:
        return self._table / self.log_variance(torch.arange(len(self._table))).cpu().exp()

    def terms(self, t: Tensor) -> tuple[Tensor, Tensor]:
        u = self.log_variance(t)
        return self._table[t].to(u.device) / u.exp(), u

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.log_variance.named_parameters())

    def state(self) -> dict[str, Tensor]:
        return self.log_variance.state_dict()

    def load(self, state: dict[str, Tensor]) -> None:
        self.log_variance.load_state_dict(state)


class MultiTaskWeighting(LiveWeighting):
    """One weight a bin, from the latest Gram matrix of the bins' gradients; equal before the first."""

    def __init__(self, settings: MultiTask, timesteps: int):
        """Begin with equal weights.

        Args:
            settings: `ugd` or `frank_wolfe`.
            timesteps: T of the path.
        """
        self.settings = settings
        self._solve = SOLVERS[settings.name]
        self._bin_of = bin_of(timesteps, settings.bins)
        self._table = torch.ones(timesteps)

    def solve(self, gram: Tensor) -> None:
        """Take the weights that are best for M, float32 or float64 [K, K], finite. All gradients 0 changes nothing."""
        if not bool((gram.diagonal() > 0).any()):
            return
        shares = torch.from_numpy(self._solve(gram.cpu().double().numpy(), self.settings.regularisation))
        table = shares[self._bin_of]
        self._table = (table / table.mean()).float()

    def weights(self) -> Tensor:
        return self._table

    def terms(self, t: Tensor) -> tuple[Tensor, None]:
        return self._table[t], None

    def parameters(self) -> dict[str, nn.Parameter]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"weights": self._table}

    def load(self, state: dict[str, Tensor]) -> None:
        self._table = state["weights"].clone()


class LiveObjective:
    """Draws timesteps and weights errors. With fixed weighting and sampling it has no state at all."""

    def __init__(self, settings: Objective, path: Path, seed: int, device: torch.device | str = "cpu"):
        """Begin as before the first step.

        Args:
            settings: resolved against the base.
            path: the noise path.
            seed: the run's seed.
            device: where errors will lie.

        Raises:
            ConfigError: the settings do not fit the path.
        """
        self.settings, self.path = settings, path
        table = settings.weight_table(path)
        scheme = settings.weighting
        self.optimizer: torch.optim.Optimizer | None = None
        """Of what the objective itself learns by gradient; None where that is nothing."""
        self.weighting: LiveWeighting = FixedWeighting(table)
        if isinstance(scheme, Uncertainty):
            self.weighting = LearnedWeighting(table, LogVariance(path, scheme.channels, seed).to(device))
            # The moments of the publication's own optimizer (table 6); no decay, which would pull u to 0.
            self.optimizer = torch.optim.Adam(
                self.weighting.parameters().values(), lr=scheme.learning_rate, betas=(0.9, 0.99)
            )
        elif isinstance(scheme, MultiTask):
            self.weighting = MultiTaskWeighting(scheme, path.timesteps)
        self.history: LossHistory | None = None
        """The latest losses, where timesteps are drawn by them."""
        if isinstance(settings.timesteps, LossSecondMoment):
            self.history = LossHistory(settings.timesteps, path.timesteps)
        self._noted: list[tuple[Tensor, Tensor]] = []

    def draw(self, generator: torch.Generator, batch: int) -> Tensor:
        """Draw timesteps for a whole batch: int64 [B] on the CPU."""
        if self.history is not None:
            return self.history.draw(generator, batch)
        return self.settings.timesteps.sample(generator, batch, self.path)

    def terms(self, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return by what errors at ``t`` are multiplied, [B], and what is then added, [B] or None for nothing.

        Args:
            t: int64 [B] on the CPU, from :meth:`draw`.
        """
        weights, offset = self.weighting.terms(t)
        if self.history is not None:
            weights = weights * self.history.factors()[t]
        return weights, offset

    def note(self, t: Tensor, losses: Tensor) -> None:
        """Keep what part of a step's losses came to, for :meth:`observe`.

        Args:
            t: int64 [b] on the CPU, from :meth:`draw`.
            losses: [b], errors by :meth:`terms`.
        """
        if self.history is not None:
            self._noted.append((t, losses.detach()))

    def observe(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Take in the losses of a step that is done.

        Args:
            gather: returns the rows of all processes, in the same order on every one.
        """
        if self.history is None:
            return
        t = torch.cat([t for t, _ in self._noted])
        losses = torch.cat([losses for _, losses in self._noted])
        self._noted.clear()
        losses = losses / self.history.factors()[t].to(losses.device)
        # Timesteps are exact in float32, so both travel in one message.
        rows = gather(torch.stack([t.to(losses.device, losses.dtype), losses], 1)).cpu()
        self.history.observe(rows[:, 0].long().tolist(), rows[:, 1].tolist())

    def state(self) -> dict[str, Tensor]:
        """Return everything that must be saved to go on to the same bits, but the optimizer's state."""
        state = {f"weighting.{name}": value for name, value in self.weighting.state().items()}
        if self.history is not None:
            state |= {f"history.{name}": value for name, value in self.history.state().items()}
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            ArtifactError: the state is of another objective.
        """
        expected = {name: tuple(value.shape) for name, value in self.state().items()}
        found = {name: tuple(value.shape) for name, value in state.items()}
        if expected != found:
            raise ArtifactError(f"the saved objective has the tensors {found}, this one {expected}")
        self.weighting.load(_under("weighting.", state))
        if self.history is not None:
            self.history.load(_under("history.", state))


def draw_in_bin(generator: torch.Generator, index: int, bins: int, count: int, timesteps: int) -> Tensor:
    """Draw timesteps evenly from one of ``bins`` equal parts of the path: int64 [count] on the CPU."""
    first, end = (-(-number * timesteps // bins) for number in (index, index + 1))
    return torch.randint(first, end, (count,), generator=generator)


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
