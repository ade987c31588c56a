"""Loss weightings: one definition each, as the weight on the error of the clean sample, converted by identity.

With S the signal-to-noise ratio and w the weight on |clean - predicted clean|^2, the same objective has the weight
w / S on the epsilon error, w / (S + 1) on the v error and w s^2 on the flow error at level s, because for a given
noisy sample the errors of the targets are multiples of each other. Schemes are named as in "Efficient Diffusion
Training via Min-SNR Weighting Strategy" (Hang et al. 2023, arXiv 2303.09556). Importing this module needs no torch.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from inlay.errors import ConfigError
from inlay.objective.prediction import Prediction
from inlay.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from inlay.objective.path import Path


class _OnPrediction(Settings):
    """A scheme defined on the error of whatever the model predicts, from which it starts with the weight 1."""


class Plain(_OnPrediction):
    """Weight 1 on the squared error of whatever the model predicts: the loss that most models were trained with."""

    name: Literal["plain"] = "plain"


class _OnClean(Settings):
    """A scheme defined by its weight on the error of the clean sample."""

    @abstractmethod
    def on_clean(self, snr: Tensor) -> Tensor:
        """Return the weight for signal-to-noise ratios > 0; float64, the shape of ``snr``."""


class Constant(_OnClean):
    """Weight 1 on the error of the clean sample (2303.09556, section 3.1), whatever the model predicts."""

    name: Literal["constant"] = "constant"

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return 1."""
        return snr.new_ones(snr.shape)


class SNR(_OnClean):
    """Weight S on the clean sample: 1 on epsilon, whatever the model predicts."""

    name: Literal["snr"] = "snr"

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return S."""
        return snr


class MaxSNR(_OnClean):
    """Weight max(S, gamma) on the clean sample: "truncated SNR" (Salimans and Ho 2022, arXiv 2202.00512)."""

    name: Literal["max_snr"] = "max_snr"
    gamma: Annotated[float, Field(gt=0)] = 1.0
    """The least weight on the error of the clean sample, in units of the signal-to-noise ratio."""

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return max(S, gamma)."""
        return snr.clamp(min=self.gamma)


class MinSNR(_OnClean):
    """Weight min(S, gamma) on the clean sample: timesteps with little noise no longer dominate (2303.09556)."""

    name: Literal["min_snr"] = "min_snr"
    gamma: Annotated[float, Field(gt=0)] = 5.0
    """The largest weight on the error of the clean sample, in units of the signal-to-noise ratio."""

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return min(S, gamma)."""
        return snr.clamp(max=self.gamma)


class SoftMinSNR(_OnClean):
    """Weight gamma S / (S + gamma) on the clean sample: min-SNR without its kink (Crowson et al. 2401.11605)."""

    name: Literal["soft_min_snr"] = "soft_min_snr"
    gamma: Annotated[float, Field(gt=0)] = 4.0
    """The bound that the weight approaches; 1 / (standard deviation of the data)^2, 4 for 0.5."""

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return gamma S / (S + gamma)."""
        return self.gamma * snr / (snr + self.gamma)


class P2(_OnClean):
    """Weight (k + S)^-exponent on epsilon: less on timesteps with little noise (Choi et al. 2022, arXiv 2204.00227)."""

    name: Literal["p2"] = "p2"
    k: Annotated[float, Field(gt=0)] = 1.0
    """Added to the signal-to-noise ratio; bounds the weight where there is only noise."""
    exponent: Annotated[float, Field(ge=0)] = 1.0
    """How strongly timesteps with little noise lose weight (gamma of the publication); 0 is `snr`."""

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return S (k + S)^-exponent."""
        return snr * (self.k + snr) ** -self.exponent


class Debiased(_OnClean):
    """Weight 1 / sqrt(S) on epsilon, sqrt(S) on the clean sample (Yu et al. 2023, arXiv 2310.08442)."""

    name: Literal["debiased"] = "debiased"
    snr_cap: Annotated[float, Field(gt=0)] = 1000.0
    """Signal-to-noise ratios above this count as this, so that the weight on epsilon stays above 1 / sqrt(snr_cap)."""

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return S / sqrt(min(S, snr_cap))."""
        return snr / snr.clamp(max=self.snr_cap).sqrt()


class EDM(_OnClean):
    """Weight (s^2 + d^2) / (s d)^2 with s^2 = 1 / S and d = ``sigma_data`` (Karras et al. 2206.00364, table 1)."""

    name: Literal["edm"] = "edm"
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    """Standard deviation of the clean samples."""

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return S + 1 / sigma_data^2, which is the publication's form simplified."""
        return snr + self.sigma_data**-2


class Sigmoid(_OnClean):
    """Weight sigmoid(bias - ln S) on epsilon (Kingma and Gao 2023, arXiv 2303.00848).

    Identical to soft-min-SNR with gamma = e^bias. The publication integrates over ln S; here, as in every other scheme,
    the weight stands on the loss at the timestep as drawn.
    """

    name: Literal["sigmoid"] = "sigmoid"
    bias: float = 2.0
    """The log signal-to-noise ratio at which the weight on epsilon is one half."""

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return S sigmoid(bias - ln S)."""
        return snr * (self.bias - snr.log()).sigmoid()


class Uncertainty(_OnClean):
    """EDM's weight over e^u, and u added to the loss: u is learned (Karras et al. 2024, arXiv 2312.02696, equation 21).

    u is a small network of the noise level, trained beside the model. At its best it is the logarithm of EDM's loss
    there, so that every noise level comes to contribute the same. The model that comes out does not contain it.
    """

    name: Literal["uncertainty"] = "uncertainty"
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    """Standard deviation of the clean samples."""
    channels: Annotated[int, Field(ge=1)] = 128
    """Fourier features of the noise level from which u is computed."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Of u alone, by Adam; the schedule of `train.learning_rate` does not act on it."""

    def on_clean(self, snr: Tensor) -> Tensor:
        """Return S + 1 / sigma_data^2: what the weight is where u is 0, as it is everywhere at the start."""
        return snr + self.sigma_data**-2


class MultiTask(_OnPrediction):
    """Timestep bins as tasks: weights that minimise |sum w g|^2 + lambda |w|^2, w >= 0, over the bins' gradients g.

    Source: Hang et al. 2023, arXiv 2303.09556, section 3.3; Sener and Koltun 2018, arXiv 1810.04650. The gradients are
    those of the plain loss, averaged over a few pictures. The mean weight over the timesteps is 1. Each computation
    costs one forward and backward pass a bin.
    """

    name: str
    """Which algorithm solves the problem."""
    every: Annotated[int, Field(ge=1)] = 500
    """Optimizer steps between computations; the first is before the first step."""
    bins: Annotated[int, Field(ge=2)] = 10
    """Equal parts of the path; timesteps of one part share a weight."""
    samples: Annotated[int, Field(ge=1)] = 8
    """Pictures from which a bin's gradient is measured, all in one pass: they must fit the memory of a training step
    with as many."""
    regularisation: Annotated[float, Field(gt=0)] = 0.05
    """lambda, in units of the mean |g|^2 of the bins. Large values make all weights equal."""
    parameters: tuple[str, ...] = ()
    """Patterns such as `*up_blocks*`: only trained parameters with such names are compared, which saves most of the
    backward pass where they lie near the output; all of them by default."""
    numbers: Annotated[int, Field(ge=1)] = 1_000_000
    """At most so many of the trained numbers, drawn from the seed, are compared, which bounds the memory."""


class UGD(MultiTask):
    """The multi-task optimum by unconstrained gradient descent on b, weights = softmax(b) (2303.09556, section 3.3)."""

    name: Literal["ugd"] = "ugd"


class FrankWolfe(MultiTask):
    """The multi-task optimum by the algorithm of Frank and Wolfe (Sener and Koltun 2018, arXiv 1810.04650)."""

    name: Literal["frank_wolfe"] = "frank_wolfe"


Weighting = Annotated[
    Plain
    | Constant
    | SNR
    | MaxSNR
    | MinSNR
    | SoftMinSNR
    | P2
    | Debiased
    | EDM
    | Sigmoid
    | Uncertainty
    | UGD
    | FrankWolfe,
    Field(discriminator="name"),
]

FIXED = (Plain(), Constant(), SNR(), MaxSNR(), MinSNR(), SoftMinSNR(), P2(), Debiased(), EDM(), Sigmoid())
"""The schemes that do not change while training, at their defaults."""
_DEFAULTS = (*FIXED, Uncertainty(), UGD(), FrankWolfe())


def weight(scheme: Weighting, prediction: Prediction, path: Path, t: Tensor) -> Tensor:
    """Return the weight on the squared error of ``prediction`` at the timesteps ``t``.

    Args:
        scheme: which weighting; of one that changes while training, the weight at the start.
        prediction: what the model's output is compared with.
        path: the noise path.
        t: int64 [B].

    Returns:
        float32 [B] on the CPU, finite and not negative.

    Raises:
        ConfigError: the path has no such prediction, or the weight is unbounded somewhere on this path, be it at
            another timestep than those of ``t``.
    """
    return weight_table(scheme, prediction, path)[t.cpu()]


def weight_table(scheme: Weighting, prediction: Prediction, path: Path) -> Tensor:
    """Return the weights at every timestep, float32 [T]; see :func:`weight`."""
    path.require(prediction)
    if isinstance(scheme, MultiTask) and scheme.bins > path.timesteps:
        raise ConfigError(f"weighting.bins={scheme.bins}: the path has only {path.timesteps} timesteps")
    weights = _on_target(scheme, prediction, path)
    if not bool(weights.isfinite().all()):
        allowed = [other.name for other in _DEFAULTS if bool(_on_target(other, prediction, path).isfinite().all())]
        raise ConfigError(
            f"weighting {scheme.name!r} does not fit prediction {prediction!r} on this noise schedule: at timestep "
            f"{int((~weights.isfinite()).nonzero()[0])} the signal-to-noise ratio is 0 and the weight on the "
            f"{prediction} error has no bound; allowed here: {', '.join(allowed)}"
        )
    return weights


def _on_target(scheme: Weighting, prediction: Prediction, path: Path) -> Tensor:
    """Return float32 [T]; infinite where the weight is unbounded."""
    import torch

    t = torch.arange(path.timesteps)
    if isinstance(scheme, _OnPrediction):
        return torch.ones(path.timesteps)
    # At S = 0 the limit is wanted, not 0 / 0. The smallest positive float64 is so near that every weight with a limit
    # reaches it to float32's last bit, and every weight without one overflows float32.
    snr = path.snr(t).clamp(min=torch.finfo(torch.float64).tiny)
    weights = scheme.on_clean(snr)
    if prediction == "epsilon":
        weights = weights / snr
    elif prediction != "sample":
        # The error of either velocity is the clean error / sigma; sigma^2 is 1 / (S + 1) for v and s^2 for flow.
        weights = weights * path.sigma(t) ** 2
    return weights.to(torch.float32)
