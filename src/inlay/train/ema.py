"""Exponential moving average of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from inlay.errors import ArtifactError


class EMA:
    """Float32 averages of a list of parameters, kept beside them.

    After each optimizer step average <- d * average + (1 - d) * parameter. With ``warmup`` the n-th update uses
    d = min(decay, n / (n + 9)), so that short runs are not dominated by their first weights.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.9999, warmup: bool = True):
        """Start the averages at the parameters' present values.

        Args:
            parameters: what to average; the order is that of :meth:`state`. Their identity must not change.
            decay: d, in [0, 1).
            warmup: begin with smaller d.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._parameters = list(parameters)
        self._averages = [parameter.detach().to(torch.float32, copy=True) for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present values into the averages; call once after each optimizer step."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9)) if self.warmup else self.decay
        if self._averages:
            present = [parameter.detach().to(torch.float32) for parameter in self._parameters]
            torch._foreach_lerp_(self._averages, present, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def state(self) -> dict[str, Tensor]:
        """Return the averages under "0", "1", ... and the number of updates; the live tensors, not copies."""
        numbered = {str(index): average for index, average in enumerate(self._averages)}
        return {"updates": torch.tensor(self.updates), **numbered}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            ArtifactError: the state belongs to other parameters; nothing has changed then.
        """
        expected = {name: tuple(average.shape) for name, average in self.state().items()}
        found = {name: tuple(value.shape) for name, value in state.items()}
        if found != expected:
            wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            raise ArtifactError(
                f"the saved weight averages do not fit these {len(self._averages)} parameters: entry {wrong[0]!r} has "
                f"shape {found.get(wrong[0])}, expected {expected.get(wrong[0])} (None: absent)"
            )
        self.updates = int(state["updates"])
        for index, average in enumerate(self._averages):
            average.copy_(state[str(index)])

    @contextmanager
    @torch.no_grad()
    def swapped(self) -> Iterator[None]:
        """Put the averages into the parameters for the duration of a ``with`` block, then the old values back.

        Needs memory for one more copy of the parameters. What the block writes to the parameters is lost.
        """
        kept = [parameter.detach().clone() for parameter in self._parameters]
        try:
            for parameter, average in zip(self._parameters, self._averages, strict=True):
                parameter.copy_(average)
            yield
        finally:
            for parameter, value in zip(self._parameters, kept, strict=True):
                parameter.copy_(value)
