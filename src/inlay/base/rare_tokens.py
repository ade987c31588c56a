"""Words that can name a subject: whole tokens of a base's vocabulary of which the base knows as little as possible.

DreamBooth (arXiv 2208.12242, section 3.2) binds a subject to a rare token: a common word already means something, and a
made-up string falls into letters, each with a meaning of its own. A byte-pair vocabulary tells how rare a token is: its
merges are learned from the most frequent to the least, so a late token was rare in the text it was made from.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from inlay.base.locate import Location, weight_files

if TYPE_CHECKING:
    from torch import Tensor

Verdict = Literal["good", "fair", "bad"]
VERDICTS: tuple[Verdict, ...] = ("good", "fair", "bad")
WORD_END = "</w>"
EARLY, LATE = 0.5, 0.75
"""Before the one, a token counts as common; from the other on, as rare. Shares of the vocabulary's merges."""
TYPEABLE = re.compile("[a-z]{3,5}")
"""What :meth:`Vocabulary.rare` proposes: short, and on every keyboard."""
LARGE = 0.9
"""Share of words with a smaller embedding from which on one counts as unusually large."""
SENTENCE = ("a photo of ", " on the table")


@dataclass(frozen=True)
class Reason:
    """One thing that is known of a word."""

    verdict: Verdict
    """What the word could be at best, if this were all: `good` speaks for it."""
    text: str


@dataclass(frozen=True)
class Judged:
    """A word, what the tokenizer makes of it, and whether it can name a subject."""

    word: str
    verdict: Verdict
    """`good`; `fair`: usable, but another may be better; `bad`: it means too much, or falls apart."""
    pieces: tuple[str, ...]
    """The tokens that the word is cut into."""
    token: int | None
    """Its id where it is one token."""
    lateness: float | None
    """Share of the vocabulary's merges that were learned before it, 0 to 1."""
    norm: float | None
    """Length of its embedding vector; None without weights."""
    norm_share: float | None
    """Share of whole words with a shorter one."""
    near: tuple[tuple[str, float], ...]
    """The words with the most similar embeddings, and the cosines; of centred embeddings."""
    reasons: tuple[Reason, ...]


class Vocabulary:
    """A tokenizer's vocabulary, with the embedding of its tokens where there are weights."""

    def __init__(self, tokenizer: Any, embedding: Tensor | None = None):
        """Sort a vocabulary by its merges.

        Args:
            tokenizer: transformers' ``CLIPTokenizer``.
            embedding: the text encoder's, float [tokens, D].
        """
        self._tokenizer = tokenizer
        special = set(tokenizer.all_special_tokens)
        merged = {
            token: number
            for token, number in tokenizer.get_vocab().items()
            if token not in special and len(token.removesuffix(WORD_END)) > 1
        }
        ordered = sorted(merged, key=merged.__getitem__)
        self._place = {merged[token]: place for place, token in enumerate(ordered)}
        self._words = {token.removesuffix(WORD_END): merged[token] for token in ordered if token.endswith(WORD_END)}
        self._embedding = None if embedding is None else embedding.float()
        if self._embedding is not None:
            rows = self._embedding[list(self._words.values())]
            self._norms = rows.norm(dim=1)
            self._row = {word: row for row, word in enumerate(self._words)}
            self._directions = (rows - rows.mean(0)) / (rows - rows.mean(0)).norm(dim=1, keepdim=True)

    def rare(self, count: int) -> list[Judged]:
        """Return the words most fit to name a subject, the best first and among equals the latest merge first."""
        first = LATE * (len(self._place) - 1)
        late = [word for word, number in self._words.items() if self._place[number] >= first]
        judged = [self._judge(word) for word in late if TYPEABLE.fullmatch(word)]
        usable = [one for one in judged if one.verdict != "bad"]
        usable.sort(key=lambda one: (VERDICTS.index(one.verdict), -(one.lateness or 0)))
        return [dataclasses.replace(one, near=self._near(one.word)) for one in usable[:count]]

    def judge(self, word: str) -> Judged:
        """Return whether a word can name a subject, and why."""
        judged = self._judge(word)
        return dataclasses.replace(judged, near=self._near(judged.word))

    def _judge(self, word: str) -> Judged:
        word = word.strip().lower()  # as the tokenizer reads it
        ids = self._ids(word)
        pieces = tuple(self._tokenizer.convert_ids_to_tokens(ids))
        if len(ids) != 1:
            cut = " ".join(piece.removesuffix(WORD_END) for piece in pieces)
            text = f"the tokenizer cuts it into {len(ids)} tokens: {cut}. Each has a meaning of its own"
            return Judged(word, "bad", pieces, None, None, None, None, (), (Reason("bad", text),))
        [number] = ids
        lateness = self._place[number] / max(1, len(self._place) - 1) if number in self._place else 0.0
        norm, share = self._norm(word)
        reasons = (*self._spelling(word, number), *self._use(word, number, lateness, share))
        verdict = VERDICTS[max(VERDICTS.index(reason.verdict) for reason in reasons)]
        return Judged(word, verdict, pieces, number, lateness, norm, share, (), reasons)

    def _spelling(self, word: str, number: int) -> Iterable[Reason]:
        """Give reasons that lie in how a word of one token is written and read."""
        yield Reason("good", "one token")
        before, after = map(self._ids, SENTENCE)
        if self._ids(word.join(SENTENCE)) == [*before, number, *after]:
            yield Reason("good", "stays one between other words")
        else:
            yield Reason("bad", "changes the tokens of the words beside it")
        if self._tokenizer.decode([number]).strip() == word:
            yield Reason("good", "reads back as it was written")
        else:
            yield Reason("bad", "does not read back as it was written")
        if re.fullmatch("[a-z]+", word):
            yield Reason("good", "plain letters")
        else:
            yield Reason("bad", "not only letters a to z: hard to type, or joined to what stands beside it")

    def _use(self, word: str, number: int, lateness: float, norm_share: float | None) -> Iterable[Reason]:
        """Give reasons that tell how much a word of one token is used and means."""
        if number not in self._place:
            yield Reason("bad", "a single sign, which is part of countless words")
        else:
            place = f"merge {self._place[number] + 1:,} of {len(self._place):,}"
            if lateness >= LATE:
                yield Reason("good", f"{place}: late, so rare")
            elif lateness >= EARLY:
                yield Reason("fair", f"{place}: neither early nor late")
            else:
                yield Reason("bad", f"{place}: early, so common")
        if re.search("[aeiouy]", word):
            yield Reason("fair", "can be spoken: may be a word or a name somewhere")
        else:
            yield Reason("good", "no vowel: hardly a word")
        if len(set(word)) == 1:
            yield Reason("fair", "one letter repeated, which people write and mean something by")
        if norm_share is not None and norm_share >= LARGE:
            yield Reason("fair", "unusually large embedding: trained on much")
        elif norm_share is not None:
            yield Reason("good", "embedding of ordinary size")

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def _norm(self, word: str) -> tuple[float | None, float | None]:
        if self._embedding is None or word not in self._words:
            return None, None
        norm = self._norms[self._row[word]]
        return norm.item(), (self._norms < norm).float().mean().item()

    def _near(self, word: str, count: int = 3) -> tuple[tuple[str, float], ...]:
        if self._embedding is None or word not in self._words:
            return ()
        words = list(self._words)
        cosines, places = (self._directions @ self._directions[self._row[word]]).topk(count + 1)
        found = [(words[place], cosine) for place, cosine in zip(places.tolist(), cosines.tolist(), strict=True)]
        return tuple((other, cosine) for other, cosine in found if other != word)[:count]


def read_embedding(location: Location) -> Tensor | None:
    """Return a base's token embedding [tokens, D] without loading anything else; None where there are no weights."""
    from safetensors import safe_open

    if location.kind == "architecture":
        return None
    files = [location.path] if location.kind == "checkpoint" else weight_files(location.path, "text_encoder")
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                if key.endswith("token_embedding.weight"):
                    return file.get_tensor(key)
    return None
