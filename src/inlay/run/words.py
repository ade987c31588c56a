"""New words of prompts, held against a base's vocabulary and a run's captions before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from inlay.base.architecture import TextArchitecture
from inlay.base.contract import BaseArchitecture
from inlay.base.locate import locate
from inlay.base.prompts import Prompts, load_tokenizer
from inlay.errors import ConfigError
from inlay.methods import Attachment
from inlay.run.attach import introduce
from inlay.run.config import JobConfig


def check_words(config: JobConfig, architecture: BaseArchitecture, captions: Iterable[str]) -> None:
    """Hold the words that a job's methods read and bring against the base's vocabulary and the captions.

    Raises:
        ConfigError: a new word can learn nothing from these captions; or the base has no tokenizer.
        TargetError: the vocabulary does not have the words that a method names, or has what should be new.
    """
    parts = architecture.meta()
    attachments = [method.attach(parts) for method in config.methods]
    if any(attachment.words for attachment in attachments) and isinstance(architecture, TextArchitecture):
        tokenizer = load_tokenizer(config.base, locate(config.base), architecture)
        prompts = Prompts(tokenizer, architecture.tokens)
        introduce(attachments, prompts)
        check_captions(attachments, prompts, captions)


def check_captions(attachments: Sequence[Attachment], prompts: Prompts, captions: Iterable[str]) -> None:
    """Refuse new words that no caption has, or whose vectors a caption has no room for.

    Args:
        attachments: on the meta device; afterwards they are as at the end of training.
        prompts: knows their words.
        captions: of the pictures to train on.

    Raises:
        ConfigError: names the word and what to write.
    """
    captions = list(dict.fromkeys(captions))
    for attachment in attachments:
        attachment.at_step(sys.maxsize)
    for word, ids in ((word, ids) for attachment in attachments for word, ids in attachment.words.items()):
        having = [caption for caption in captions if word in caption.lower()]
        if not having:
            raise ConfigError(
                f"method.token={word!r}: none of the {len(captions)} captions contains this word, so it would learn "
                f"nothing; write it into data.prompt ('a photo of {word}') or into the captions"
            )
        for caption, tokens in zip(having, prompts.tokens(having), strict=True):
            if ids[-1] not in tokens[: prompts.length - 2]:
                raise ConfigError(
                    f"the caption {caption[:60]!r} has {len(tokens)} tokens, {len(ids)} of them for {word!r}, and the "
                    f"text encoder reads the first {prompts.length - 2}: the word would be cut off; shorten the "
                    "caption, move the word to its beginning, or lower method.vectors"
                )
