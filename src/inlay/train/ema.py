"""Averages of parameters over the training: exponential, and power-function ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from inlay.errors import ArtifactError
from inlay.train.profiles import decay


class Averages(ABC):
    """Float32 averages of a list of parameters, kept beside them; one or several of each.

    After each optimizer step average <- d * average + (1 - d) * parameter, with a d for each of the averages.
    """

    def __init__(self, parameters: Iterable[Tensor], count: int):
        """Start the averages at the parameters' present values.

        Args:
            parameters: what to average; the order is that of :meth:`state`. Their identity must not change.
            count: how many averages of each.
        """
        self.updates = 0
        self._parameters = list(parameters)
        self._averages = [
            [parameter.detach().to(torch.float32, copy=True) for parameter in self._parameters] for _ in range(count)
        ]

    @abstractmethod
    def decays(self) -> Sequence[float]:
        """Return d of each average for update number ``updates``, counted from 1."""

    @torch.no_grad()
    def update(self) -> None:
        """Take the present values into the averages; call once after each optimizer step."""
        self.updates += 1
        if not self._parameters:
            return
        present = [parameter.detach().to(torch.float32) for parameter in self._parameters]
        for averages, kept in zip(self._averages, self.decays(), strict=True):
            torch._foreach_lerp_(averages, present, 1 - kept)  # pyright: ignore[reportPrivateImportUsage]

    def values(self, which: int) -> list[Tensor]:
        """Return one of the averages of every parameter; the live tensors, not copies."""
        return self._averages[which]

    def state(self) -> dict[str, Tensor]:
        """Return the averages and the number of updates; the live tensors, not copies.

        The first average of each parameter is under "0", "1", ..., others under "1/0", "1/1", ...
        """
        numbered = {
            f"{index}" if which == 0 else f"{which}/{index}": average
            for which, averages in enumerate(self._averages)
            for index, average in enumerate(averages)
        }
        return {"updates": torch.tensor(self.updates), **numbered}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            ArtifactError: the state belongs to other parameters; nothing has changed then.
        """
        own = self.state()
        expected = {name: tuple(average.shape) for name, average in own.items()}
        found = {name: tuple(value.shape) for name, value in state.items()}
        if found != expected:
            wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            raise ArtifactError(
                f"the saved weight averages do not fit these {len(self._parameters)} parameters: entry {wrong[0]!r} "
                f"has shape {found.get(wrong[0])}, expected {expected.get(wrong[0])} (None: absent)"
            )
        self.updates = int(state["updates"])
        for name, average in own.items():
            if name != "updates":
                average.copy_(state[name])

    @contextmanager
    @torch.no_grad()
    def swapped(self) -> Iterator[None]:
        """Put the first averages into the parameters for the duration of a ``with`` block, then the old values back.

        Needs memory for one more copy of the parameters. What the block writes to the parameters is lost.
        """
        kept = [parameter.detach().clone() for parameter in self._parameters]
        try:
            for parameter, average in zip(self._parameters, self._averages[0], strict=True):
                parameter.copy_(average)
            yield
        finally:
            for parameter, value in zip(self._parameters, kept, strict=True):
                parameter.copy_(value)


class EMA(Averages):
    """An exponential moving average.

    With ``warmup`` the n-th update uses d = min(decay, n / (n + 9)), so that short runs are not dominated by their
    first weights.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.9999, warmup: bool = True):
        """Start the averages at the parameters' present values.

        Args:
            parameters: what to average, as for :class:`Averages`.
            decay: d, in [0, 1).
            warmup: begin with smaller d.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        super().__init__(parameters, 1)
        self.decay, self.warmup = decay, warmup

    def decays(self) -> list[float]:
        return [min(self.decay, self.updates / (self.updates + 9)) if self.warmup else self.decay]


class PowerEMA(Averages):
    """Averages with power-function profiles of several relative lengths; see :mod:`inlay.train.profiles`."""

    def __init__(self, parameters: Iterable[Tensor], sigma_rel: Sequence[float]):
        """Start the averages.

        Args:
            parameters: what to average, as for :class:`Averages`.
            sigma_rel: the relative lengths, each in (0, 0.28]; :meth:`swapped` shows the first.

        Raises:
            ValueError: a length is outside that range.
        """
        for length in sigma_rel:
            decay(length, 1)
        super().__init__(parameters, len(sigma_rel))
        self.sigma_rel = tuple(sigma_rel)

    def decays(self) -> list[float]:
        return [decay(length, self.updates) for length in self.sigma_rel]
