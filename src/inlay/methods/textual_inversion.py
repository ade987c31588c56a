"""Textual inversion (arXiv 2208.01618): a new word of prompts, and the embedding vectors that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from inlay.errors import ArtifactError, TargetError
from inlay.methods.contract import Attachment, Method, pick

if TYPE_CHECKING:
    from torch import Tensor, nn


class TextualInversion(Method):
    """Learn what a new word of prompts means: one vector or a few; every other word stays as it is."""

    name: Literal["textual_inversion"] = "textual_inversion"
    token: str = "<new>"
    """The new word, which prompts and captions must contain. It is found wherever it stands, also inside other words:
    angle brackets keep it apart."""
    vectors: Annotated[int, Field(ge=1)] = 1
    """Token embeddings that the word stands for, so many tokens of a prompt's length."""
    init: Annotated[str, Field(min_length=1)] | None = None
    """Words to begin at, of one token each, with spaces between. As many words as vectors: each vector at its own;
    otherwise all at the mean of the words. Null for the mean of the whole vocabulary."""
    std: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of what is added to where the vectors begin, drawn from the run's seed."""
    grow_at: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Steps after which one more of the vectors joins, rising. Training begins with the vectors that are left; those
    whose step the run does not reach are not saved."""

    result: ClassVar[Literal["adapter", "pipeline"]] = "adapter"
    file_name: ClassVar[str] = "learned_embeds.safetensors"
    learning_rate: ClassVar[float] = 2e-3
    merges: ClassVar[bool] = False

    @field_validator("token")
    @classmethod
    def _is_a_word(cls, token: str) -> str:
        if not token or token != token.lower() or any(character.isspace() for character in token):
            raise ValueError(f"{token!r} is no new word; give one in small letters and without spaces, such as '<pip>'")
        return token

    @model_validator(mode="after")
    def _grows(self) -> TextualInversion:
        if list(self.grow_at) != sorted(set(self.grow_at)) or len(self.grow_at) >= self.vectors:
            raise ValueError(
                f"grow_at={list(self.grow_at)} with vectors={self.vectors}: give rising steps, fewer than vectors, as "
                "training begins with at least one"
            )
        return self

    @property
    def starts_at_base(self) -> bool:
        """Only prompts without the new word are what they were; those with it the base reads as other tokens."""
        return False

    def attach(self, components: Mapping[str, nn.Module]) -> TextualInversionAttachment:
        """Give the text encoder vectors for the new word; see :meth:`Method.attach`."""
        if "text_encoder_2" in components:
            raise TargetError(
                "textual_inversion: the base reads prompts by two text encoders (Stable Diffusion XL), each with "
                "vectors of its own; only bases with one are supported"
            )
        encoder: Any = pick(components, ("text_encoder",))["text_encoder"]
        length = int(encoder.config.max_position_embeddings) - 2  # begin and end take their places
        if self.vectors > length:
            raise TargetError(f"method.vectors={self.vectors}: a prompt has room for {length} tokens here")
        if self.token in (attachment.method.token for attachment in extensions(encoder)):
            raise TargetError(
                f"method.token={self.token!r}: another method of the stack brings this word; give each one of its own"
            )
        return TextualInversionAttachment(self, encoder)


class TextualInversionAttachment(Attachment):
    """Vectors that an embedding looks up for token ids beyond its own.

    They lie in a parameter of their own, so that no optimizer ever sees the embedding's other rows.
    """

    def __init__(self, method: TextualInversion, encoder: Any):
        """Begin at the mean of the vocabulary; :meth:`read` can choose words of it instead."""
        import torch
        from torch import nn

        self.method: TextualInversion = method
        self._embedding = embedding = encoder.get_input_embeddings()
        rows = embedding.weight.detach()
        noise = (method.std * torch.randn(method.vectors, rows.shape[1])).to(rows.device, torch.float32)
        vectors = nn.Parameter(rows.float().mean(0) + noise)
        self._owned = {method.token: vectors}
        self._initial = vectors.detach().clone()
        others = extensions(encoder)
        self._first_id = max([len(rows), *(other._first_id + other.method.vectors for other in others)])
        self._parameter_name = f"inlay_vectors_{self._first_id}"
        self._enabled = True
        self.at_step(0)
        embedding.register_parameter(self._parameter_name, vectors)
        if not others:
            embedding.forward = _Extended(embedding)
        embedding.forward.attachments.append(self)

    @property
    def components(self) -> frozenset[str]:
        return frozenset({"text_encoder"})

    @property
    def words(self) -> Mapping[str, Sequence[int]]:
        if not self._enabled:
            return {}
        return {self.method.token: range(self._first_id, self._first_id + self._active)}

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._owned)

    def read(self, tokenize: Callable[[str], Sequence[int]]) -> None:
        import torch

        token, init = self.method.token, self.method.init
        known = tokenize(token)
        if len(known) == 1:
            raise TargetError(
                f"method.token={token!r}: the base's vocabulary has this word (token {known[0]}); give a new one, such "
                f"as '<{token}>'"
            )
        if init is None:
            return
        ids = {word: tokenize(word) for word in init.split()}
        for word, parts in ids.items():
            if len(parts) != 1:
                raise TargetError(
                    f"method.init={init!r}: the base's tokenizer cuts {word!r} into {len(parts)} tokens; allowed are "
                    f"words of one token (`inlay tokens --check WORD` tells)"
                )
        weight = self._embedding.weight.detach()
        rows = weight[[parts[0] for parts in ids.values()]].float()
        with torch.no_grad():
            noise = self._initial - weight.float().mean(0)
            self._initial.copy_((rows if len(rows) == self.method.vectors else rows.mean(0)) + noise)
            self._vectors.copy_(self._initial)

    def at_step(self, step: int) -> None:
        """Count the vectors that take part; the others are put back to where they begin.

        No gradient has reached those, but an optimizer's weight decay has.
        """
        import torch

        first = self.method.vectors - len(self.method.grow_at)
        self._active = first + sum(joins <= step for joins in self.method.grow_at)
        trained = first + sum(joins < step for joins in self.method.grow_at)
        with torch.no_grad():
            self._vectors[trained:] = self._initial[trained:].to(self._vectors.device)

    def look_up(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of the token ids [...] are this method's, and vectors [..., D] that hold for those."""
        import torch.nn.functional as F

        place = ids - self._first_id
        own = (place >= 0) & (place < self._active)
        return own, F.embedding(place.clamp(0, self._active - 1), self._vectors)

    @property
    def _vectors(self) -> nn.Parameter:
        return self._owned[self.method.token]

    @property
    def enabled(self) -> bool:
        """Whether the text encoder knows the word now."""
        return self._enabled

    @contextmanager
    def disabled(self) -> Iterator[None]:
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    def merge(self) -> None:
        raise TargetError(
            "textual_inversion: a new word is one of the tokenizer too, which is no part of the base's weights; keep "
            "it as a file beside the base, where all programs that draw pictures expect it"
        )

    def detach(self) -> None:
        others = self._embedding.forward.attachments
        others.remove(self)
        if not others:
            del self._embedding.forward
        delattr(self._embedding, self._parameter_name)
        self._owned = {}
        self._initial = self._initial[:0].clone()
        self._enabled = False

    def metadata(self) -> dict[str, str]:
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return the vectors that have joined, [n, D], by the word: the file that diffusers reads."""
        return {self.method.token: self._vectors.detach()[: self._active]}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved vectors, fewer where the run ended before all had joined; see :meth:`Attachment.load`."""
        import torch

        token, count = self.method.token, self.method.vectors
        fits = state.keys() == {token} and state[token].shape[1:] == self._vectors.shape[1:]
        joined = len(state[token]) if fits else 0
        before, self._active = self._active, count
        if count - len(self.method.grow_at) <= joined < count:
            state = {token: torch.cat([state[token].float().to(self._initial.device), self._initial[joined:]])}
        try:
            super().load(state)
        except ArtifactError:
            self._active = before
            raise
        self._active = joined


class _Extended:
    """An embedding's ``forward`` that knows the vectors of attached methods too."""

    def __init__(self, embedding: Any):
        self._embedding = embedding
        self.attachments: list[TextualInversionAttachment] = []

    def __call__(self, ids: Tensor) -> Tensor:
        """Token ids [...] => embeddings [..., D]; ids of no method are the embedding's own, or its error."""
        import torch

        found = [attachment.look_up(ids) for attachment in self.attachments if attachment.enabled]
        for own, _ in found:
            ids = ids.masked_fill(own, 0)
        embedded = type(self._embedding).forward(self._embedding, ids)
        for own, vectors in found:
            embedded = torch.where(own[..., None], vectors.to(embedded.dtype), embedded)
        return embedded


def extensions(text_encoder: Any) -> list[TextualInversionAttachment]:
    """Return the methods that have given a text encoder new words, in the order of attachment."""
    forward = vars(text_encoder.get_input_embeddings()).get("forward")
    return forward.attachments if isinstance(forward, _Extended) else []
