"""From prompts to token ids: the base's own tokenizer, and words that a method has added to what the base reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.base.architecture import TextArchitecture, architecture_folder
from inlay.base.locate import Location
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

CLIP = "openai/clip-vit-large-patch14"
"""Whose tokenizer Stable Diffusion 1.x and 2.x have, where a base brings none."""
HINT = "give base.tokenizer, a directory with tokenizer.json, or with vocab.json and merges.txt"

Words = Mapping[str, Sequence[int]]
"""New words, each by the token ids under which the text encoder knows it."""


class Prompts:
    """Reads prompts for a text encoder."""

    def __init__(self, tokenizer: Any, length: int):
        """Read with a tokenizer.

        Args:
            tokenizer: transformers' ``CLIPTokenizer``; it is never changed.
            length: tokens that the text encoder reads, those of begin and end counted.
        """
        self.tokenizer = tokenizer
        self.length = length
        self._added: list[Callable[[], Words]] = []

    def add(self, words: Callable[[], Words]) -> None:
        """Let prompts hold further words; asked anew at every prompt, so that they may come, change and go."""
        self._added.append(words)

    def tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each prompt without those of begin and end, uncut.

        New words are found wherever they stand, in capitals too, as diffusers finds them. A prompt without any has
        exactly the ids that the base's own tokenizer gives it.
        """
        words = {word: ids for source in self._added for word, ids in source().items()}
        longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        pieces = [re.split(f"({longest_first})", text, flags=re.IGNORECASE) if words else [text] for text in prompts]
        plain = list({piece for split in pieces for piece in split if piece.lower() not in words})
        read = self.tokenizer(plain, add_special_tokens=False, verbose=False).input_ids if plain else []
        ids: dict[str, Sequence[int]] = dict(zip(plain, read, strict=True))
        return [[token for piece in split for token in (words.get(piece.lower()) or ids[piece])] for split in pieces]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Return token ids, int64 [B, length], with begin and end, cut and padded."""
        import torch

        begin, end, pad = (getattr(self.tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad"))
        rows = [[begin, *tokens[: self.length - 2], end] for tokens in self.tokens(prompts)]
        return torch.tensor([row + [pad] * (self.length - len(row)) for row in rows])

    def overlong(self, prompts: Sequence[str]) -> list[str]:
        """Return those prompts of which the text encoder would not see the end."""
        lengths = map(len, self.tokens(prompts))
        return [prompt for prompt, length in zip(prompts, lengths, strict=True) if length > self.length - 2]


def load_tokenizer(settings: BaseSettings, location: Location, architecture: TextArchitecture) -> Any:
    """Return a base's tokenizer.

    Raises:
        ConfigError: there is none, or it has more tokens than the text encoder.
    """
    from transformers import CLIPTokenizer

    source = settings.tokenizer or str(_folder(settings, location) or CLIP)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(source)
    except Exception as error:  # transformers raises many kinds, the hub's among them
        raise ConfigError(
            f"base.model={settings.model}: no tokenizer at {source} ({type(error).__name__}); {HINT}"
        ) from None
    size, rows = len(tokenizer), int(architecture.text_encoder["vocab_size"])
    if size <= len(tokenizer.all_special_tokens):  # what transformers makes up when it finds no vocabulary
        raise ConfigError(f"base.model={settings.model}: no vocabulary of a tokenizer at {source}; {HINT}")
    if size > rows:
        raise ConfigError(
            f"base.model={settings.model}: the tokenizer at {source} has {size} tokens and the text encoder {rows}; "
            f"{HINT}"
        )
    return tokenizer


def load_second_tokenizer(settings: BaseSettings, location: Location) -> Any:
    """Return the tokenizer of Stable Diffusion XL's second text encoder: the first's words, another padding."""
    from transformers import CLIPTokenizer

    folder = architecture_folder(settings, location) / "tokenizer_2"
    if folder.is_dir() and settings.tokenizer is None:
        return CLIPTokenizer.from_pretrained(folder)
    return CLIPTokenizer.from_pretrained(settings.tokenizer or str(_folder(settings, location) or CLIP), pad_token="!")


def tokenizer_here(settings: BaseSettings, location: Location, architecture: TextArchitecture) -> Any | None:
    """Return a base's tokenizer where it lies on this machine's disk as files of its own, else None.

    Raises:
        ConfigError: it is there, but cannot be read or does not fit.
    """
    folder = Path(settings.tokenizer).expanduser() if settings.tokenizer else _folder(settings, location)
    if folder is None or not folder.is_dir():
        return None
    return load_tokenizer(settings.model_copy(update={"tokenizer": str(folder)}), location, architecture)


def _folder(settings: BaseSettings, location: Location) -> Path | None:
    folder = architecture_folder(settings, location) / "tokenizer"
    return folder if folder.is_dir() else None
