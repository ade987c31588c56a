"""The training loss, one value a sample."""

import torch
from torch import Tensor


def loss_per_sample(output: Tensor, target: Tensor, weights: Tensor, places: Tensor | None = None) -> Tensor:
    """Return the weighted mean squared error of each sample, unreduced, so that it can be told apart by timestep.

    Args:
        output: [B, ...], the model's output in any floating dtype.
        target: [B, ...], from :meth:`inlay.objective.path.Path.target`.
        weights: [B], from :meth:`inlay.objective.settings.Objective.weights`.
        places: [B, 1, h, w] for outputs [B, C, h, w], by what the square at each place is multiplied, with a mean of 1
            over a picture (masked training); None for all alike.

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
    if places is not None:
        if places.shape != (len(output), 1, *output.shape[2:]):
            raise ValueError(f"places {tuple(places.shape)} must be [B, 1, h, w] for an output {tuple(output.shape)}")
        squared = squared * places.to(output.device)
    return squared.flatten(1).mean(1) * weights.to(output.device, torch.float32)
