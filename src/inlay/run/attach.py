"""Methods onto a base."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from inlay.base.contract import Base
from inlay.base.prompts import Prompts
from inlay.errors import ArtifactError
from inlay.files import read_tensors
from inlay.methods import Attachment, Method
from inlay.randomness import derive


def attach(methods: Sequence[Method], base: Base, seed: int) -> list[Attachment]:
    """Attach methods to a base in order; what they initialise at random follows from the seed.

    Where the base has a tokenizer, its prompts can hold the methods' new words afterwards.

    Raises:
        TargetError: the base lacks what a method addresses, or its vocabulary does not have the words that one names.
    """
    attachments = []
    for index, method in enumerate(methods):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "attach", index))
            attachments.append(method.attach(base.components))
    if base.prompts is not None and base.prompts.tokenizer is not None:
        introduce(attachments, base.prompts)
    return attachments


def take_over(attachment: Attachment, path: Path) -> dict[str, str]:
    """Let a method take over what a file holds; return the file's header.

    Raises:
        ArtifactError: the file cannot be read, or does not fit; nothing has changed then.
    """
    tensors, header = read_tensors(path)
    try:
        attachment.load(tensors)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    return header


def introduce(attachments: Sequence[Attachment], prompts: Prompts) -> None:
    """Let methods read the base's vocabulary, and prompts hold the methods' new words.

    Raises:
        TargetError: the vocabulary does not have the words that a method names, or has what should be new.
    """
    for attachment in attachments:
        attachment.read(lambda text: prompts.tokens([text])[0])
        prompts.add(functools.partial(getattr, attachment, "words"))
