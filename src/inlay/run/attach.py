"""Methods onto a base."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inlay.base.stable_diffusion import StableDiffusion
from inlay.methods import Attachment, Method
from inlay.randomness import derive


def attach(methods: Sequence[Method], base: StableDiffusion, seed: int) -> list[Attachment]:
    """Attach methods to a base in order; what they initialise at random follows from the seed."""
    attachments = []
    for index, method in enumerate(methods):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "attach", index))
            attachments.append(method.attach(base.components))
    return attachments
