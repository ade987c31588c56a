"""What contract tests tune and how, and how they tell whether it is still as it was."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inlay.methods import Attachment, Method
from inlay.methods.textual_inversion import extensions
from tests.tiny import make_tiny_components

Components = dict[str, Any]
MERGE_TOLERANCE = 2e-5
"""Merging rounds once in the weight what the forward pass rounds in two products; outputs are of order 1."""


@functools.cache
def _components(second: bool) -> Components:
    parts = make_tiny_components(second=second)
    return {name: parts[name] for name in ("unet", "text_encoder")}


def tiny(second: bool = False) -> Components:
    """Return a fresh copy of a tiny frozen base."""
    return copy.deepcopy(_components(second))


def another() -> Components:
    """Return a frozen base with other widths throughout."""
    from diffusers import UNet2DConditionModel

    parts = tiny(second=True)
    config = {**parts["unet"].config, "block_out_channels": (48, 96)}
    return {**parts, "unet": UNet2DConditionModel.from_config(config).requires_grad_(False).eval()}


def outputs(components: Components) -> Tensor:
    """Return what the denoiser predicts for two fixed noisy latents under the text encoder's states of two prompts.

    The prompts contain each new word that the text encoder knows.
    """
    generator = torch.Generator().manual_seed(7)
    unet, text_encoder = components["unet"], components["text_encoder"]
    ids = torch.randint(text_encoder.config.vocab_size, (2, 9), generator=generator)
    new = [token for attachment in extensions(text_encoder) for ids in attachment.words.values() for token in ids]
    ids[:, 2 : 2 + len(new)] = torch.tensor(new, dtype=torch.int64)
    noisy = torch.randn((2, 4, 8, 8), generator=generator).to(unet.dtype)
    states = text_encoder(ids)[0]
    return unet(noisy, torch.tensor([20, 900]), states, return_dict=False)[0]


def perturb(attachment: Attachment, seed: int = 3, size: float = 0.2) -> None:
    """Give every owned parameter another value, as training would; they move by `size`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attachment.parameters().values():
            parameter += size * torch.randn(parameter.shape, generator=generator)


class Snapshot:
    """Everything about a base that detaching must bring back."""

    def __init__(self, components: Mapping[str, nn.Module]):
        """Copy what can change and note the identity of what must stay the same object."""
        self.tensors = {
            f"{part}.{name}": (value, value.detach().clone())
            for part, root in components.items()
            for name, value in root.state_dict(keep_vars=True).items()
        }
        self.facts = _facts(components)

    def assert_same(self, components: Mapping[str, nn.Module]) -> None:
        """Fail where a base differs from when this was taken: a bit, a type, a flag, a hook, an attribute."""
        assert _facts(components) == self.facts
        now = {
            f"{part}.{name}": value
            for part, root in components.items()
            for name, value in root.state_dict(keep_vars=True).items()
        }
        assert now.keys() == self.tensors.keys()
        for name, (tensor, copied) in self.tensors.items():
            assert now[name] is tensor, name
            assert now[name].dtype == copied.dtype, name
            assert torch.equal(now[name].detach(), copied), name


def _facts(components: Mapping[str, nn.Module]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for part, root in components.items():
        facts[part] = sorted(vars(root))
        for name, module in root.named_modules():
            hooks = len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
            facts[f"{part}.{name}"] = (type(module), module.training, hooks)
        for name, parameter in root.named_parameters():
            facts[f"{part}.{name} parameter"] = (parameter.requires_grad, parameter.grad is None)
    return facts


def attach(method: Method, components: Components, seed: int = 0) -> Attachment:
    """Attach a method whose parameters are drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.attach(components)


def saved(attachment: Attachment, path: Path) -> dict[str, Tensor]:
    """Save what a method owns and return it as it is read again."""
    save_file(attachment.state(), path, attachment.metadata())
    return load_file(path)


def train(components: Components, attachments: list[Attachment], steps: int = 2) -> None:
    """Take a few steps on some loss."""
    owned = [parameter for attachment in attachments for parameter in attachment.parameters().values()]
    optimizer = torch.optim.AdamW(owned, lr=1e-3, weight_decay=0)
    for _ in range(steps):
        outputs(components).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
