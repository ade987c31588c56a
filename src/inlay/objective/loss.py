"""The training loss, one value a sample."""

import torch
from torch import Tensor


def loss_per_sample(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean squared error of each sample, unreduced, so that it can be told apart by timestep.

    Args:
        output: [B, ...], the model's output in any floating dtype.
        target: [B, ...], from :meth:`inlay.objective.path.Path.target`.
        weights: [B], from :meth:`inlay.objective.settings.Objective.weights`.

    Returns:
        float32 [B] on the device of ``output``.

    Raises:
        ValueError: the shapes disagree; broadcasting would hide it.
    """
    if output.shape != target.shape or weights.shape != output.shape[:1]:
        raise ValueError(
            f"output {tuple(output.shape)} and target {tuple(target.shape)} must have one shape [B, ...] and weights "
            f"{tuple(weights.shape)} must be [B]"
        )
    squared = (output.to(torch.float32) - target.to(torch.float32)).square()
    return squared.flatten(1).mean(1) * weights.to(output.device, torch.float32)
