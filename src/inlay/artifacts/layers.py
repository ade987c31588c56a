"""What adapter files say of one layer, whatever the file: a change of its weight in one of four forms.

Shapes: a layer's weight is [out, in] or, of a convolution, [out, in, kh, kw]; "inputs" below is the product of all
axes but the first. Every form is scaled by alpha / rank, by alpha / sqrt(rank) where ``rslora`` says so.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar

from inlay.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Update(ABC):
    """A change of one layer. Its tensors are as the file had them, dtype included."""

    form: ClassVar[str]
    """What messages call it."""
    magnitude: Tensor | None = None
    """DoRA's magnitudes: [out, 1, ...], one for each output, or [1, in, 1, ...], one for each input."""

    @property
    @abstractmethod
    def extent(self) -> tuple[int, int] | None:
        """(outputs, inputs) of the weights that it fits; None when it changes no weight."""

    @abstractmethod
    def delta(self, shape: tuple[int, ...]) -> Tensor:
        """Return what is added to a weight of ``shape`` before magnitudes act, scaled, in float32.

        Raises:
            ArtifactError: it does not fit a weight of this shape.
        """

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of ``shape`` can be changed by it."""
        if self.magnitude is not None and tuple(self.magnitude.shape) not in (
            (shape[0], *(1 for _ in shape[1:])),
            (1, *shape[1:2], *(1 for _ in shape[2:])),
        ):
            return False
        return self.extent is None or self.extent == (shape[0], math.prod(shape[1:]))

    def changed(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """Return the weight that the layer then has, W + strength (W' - W), in float32.

        W' is W + delta and, with magnitudes m, m (W + delta) / ||W + delta|| with the norm over all axes that m does
        not have (arXiv 2402.09353, equation 5).

        Raises:
            ArtifactError: it does not fit this weight.
        """
        import torch

        weight = weight.to(torch.float32)
        delta = self.delta(tuple(weight.shape)).to(weight.device)
        if self.magnitude is None:
            return weight + strength * delta
        whole = weight + delta
        axis = magnitude_axis(self.magnitude, tuple(weight.shape))
        others = [other for other in range(whole.dim()) if other != axis]
        norms = torch.linalg.vector_norm(whole, dim=others, keepdim=True)
        return weight + strength * (self.magnitude.to(norms) * whole / norms - weight)

    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors by the names of its fields."""
        import torch

        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}

    def _shaped(self, delta: Tensor, shape: tuple[int, ...]) -> Tensor:
        if not self.fits(shape):
            raise ArtifactError(
                f"a {self.form} of {' x '.join(map(str, self.extent or ()))} does not fit a weight of "
                f"{' x '.join(map(str, shape))}"
            )
        return delta.reshape(shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaled(Update):
    """A change whose size is alpha over its rank."""

    alpha: float | None = None
    """None where the file has none: alpha is the rank then."""
    rslora: bool = False
    """Divide by the root of the rank (arXiv 2312.03732)."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Its inner width."""

    @property
    def scale(self) -> float:
        """What the product of its factors is multiplied by."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def plain_alpha(self) -> float:
        """Alpha where the scale is alpha / rank, as formats that know no rsLoRA state it."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha * math.sqrt(self.rank) if self.rslora else alpha


@dataclass(frozen=True, eq=False, kw_only=True)
class LowRank(Scaled):
    """LoRA (arXiv 2106.09685): up x down."""

    form: ClassVar[str] = "LoRA"
    down: Tensor
    """[r, in] or [r, in, kh, kw]."""
    up: Tensor
    """[out, r] or [out, r, 1, 1]."""
    mid: Tensor | None = None
    """LoCon's core of a convolution in Tucker form, [r, r, kh, kw]; `down` then has a window of 1 x 1."""

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def extent(self) -> tuple[int, int]:
        window = math.prod(self.mid.shape[2:]) if self.mid is not None else 1
        return self.up.shape[0], math.prod(self.down.shape[1:]) * window

    def delta(self, shape: tuple[int, ...]) -> Tensor:
        import torch

        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        if self.mid is None:
            return self._shaped(self.scale * (up @ down), shape)
        return self._shaped(self.scale * torch.einsum("pi,ij...,jq->pq...", up, self.mid.float(), down), shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Hadamard(Scaled):
    """LoHa (arXiv 2108.06098): (w1_a w1_b) o (w2_a w2_b), each factor through a core t where there is one."""

    form: ClassVar[str] = "LoHa"
    w1_a: Tensor
    """[out, r]; [r, out] with a core."""
    w1_b: Tensor
    """[r, inputs]; [r, in] with a core."""
    w2_a: Tensor
    """As `w1_a`."""
    w2_b: Tensor
    """As `w1_b`."""
    t1: Tensor | None = None
    """[r, r, kh, kw]."""
    t2: Tensor | None = None
    """[r, r, kh, kw]."""

    @property
    def rank(self) -> int:
        return self.w1_b.shape[0]

    @property
    def extent(self) -> tuple[int, int]:
        if self.t1 is None:
            return self.w1_a.shape[0], self.w1_b.shape[1]
        return self.w1_a.shape[1], self.w1_b.shape[1] * math.prod(self.t1.shape[2:])

    def delta(self, shape: tuple[int, ...]) -> Tensor:
        first = _factor(self.w1_a, self.w1_b, self.t1)
        second = _factor(self.w2_a, self.w2_b, self.t2)
        return self._shaped(self.scale * first * second, shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Kronecker(Scaled):
    """LoKr (arXiv 2309.14859): the Kronecker product of w1 and w2, each whole or of low rank."""

    form: ClassVar[str] = "LoKr"
    w1: Tensor | None = None
    """[a, b]."""
    w1_a: Tensor | None = None
    """[a, r]."""
    w1_b: Tensor | None = None
    """[r, b]."""
    w2: Tensor | None = None
    """[c, d] or [c, d, kh, kw]."""
    w2_a: Tensor | None = None
    """[c, r]; [r, c] with a core."""
    w2_b: Tensor | None = None
    """[r, d x window]; [r, d] with a core."""
    t2: Tensor | None = None
    """[r, r, kh, kw]."""
    stated_rank: int | None = None
    """The rank where both factors are whole and it is needed nevertheless: PEFT scales by it, LyCORIS by 1."""

    @property
    def whole(self) -> bool:
        """Whether neither factor has a rank; the scale is 1 then, unless a rank is stated."""
        return self.w1_b is None and self.w2_b is None

    @property
    def rank(self) -> int:
        for factor in (self.w1_b, self.w2_b):
            if factor is not None:
                return factor.shape[0]
        return self.stated_rank or 1

    @property
    def scale(self) -> float:
        return 1.0 if self.whole and self.stated_rank is None else super().scale

    @property
    def extent(self) -> tuple[int, int]:
        a, b = _sides(self.w1, self.w1_a, self.w1_b, None)
        c, d = _sides(self.w2, self.w2_a, self.w2_b, self.t2)
        return a * c, b * d

    def delta(self, shape: tuple[int, ...]) -> Tensor:
        import torch

        first = _factor(self.w1_a, self.w1_b, None) if self.w1 is None else self.w1.float()
        second = _factor(self.w2_a, self.w2_b, self.t2) if self.w2 is None else self.w2.float()
        if len(shape) == 4:
            # The window is no part of the product: it stays with the second factor.
            second = second.reshape(second.shape[0], -1, *shape[2:])
            first = first[:, :, None, None]
        return self._shaped(self.scale * torch.kron(first, second.contiguous()), shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Difference(Update):
    """The whole difference of a layer's weight, of its bias, or of both."""

    form: ClassVar[str] = "full difference"
    weight: Tensor | None = None
    """Of the weight's shape."""
    bias: Tensor | None = None
    """[out]."""

    @property
    def extent(self) -> tuple[int, int] | None:
        if self.weight is None:
            return None
        return self.weight.shape[0], math.prod(self.weight.shape[1:])

    def delta(self, shape: tuple[int, ...]) -> Tensor:
        import torch

        return self._shaped(torch.zeros(shape) if self.weight is None else self.weight.float(), shape)


@dataclass(frozen=True, eq=False)
class Updates:
    """What an adapter file holds: the changes of some layers of a model."""

    layers: Mapping[str, Update]
    """By the layer's name: its part (`unet`, `text_encoder`, `text_encoder_2`) and its path in diffusers' and
    transformers' models, text encoders with the level `text_model` that all published files have."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The file's header."""


def magnitude_axis(magnitude: Tensor, shape: tuple[int, ...]) -> int:
    """Return the axis of a weight of ``shape`` along which magnitudes differ: 0 for outputs, 1 for inputs."""
    return 0 if magnitude.shape[0] == shape[0] else 1


def _factor(a: Tensor | None, b: Tensor | None, core: Tensor | None) -> Tensor:
    import torch

    if a is None or b is None:
        raise ArtifactError("a factor of a LoKr is missing")
    if core is None:
        return a.float() @ b.float()
    return torch.einsum("ij...,ip,jq->pq...", core.float(), a.float(), b.float())


def _sides(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None) -> tuple[int, int]:
    """Return (outputs, inputs) of one factor."""
    if whole is not None:
        return whole.shape[0], math.prod(whole.shape[1:])
    if a is None or b is None:
        raise ArtifactError("a factor of a LoKr is missing")
    if core is not None:
        return a.shape[1], b.shape[1] * math.prod(core.shape[2:])
    return a.shape[0], b.shape[1]
