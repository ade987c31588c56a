from __future__ import annotations

import pytest
import torch
from transformers import CLIPTokenizer

from inlay.base.locate import Location, locate
from inlay.base.rare_tokens import Vocabulary, read_embedding
from inlay.base.settings import BaseSettings

WORDS = ["the", "dog", "red", "cat", "rkt", "lev", "sks", "zzz", "sun", "qvz", "tok"]
"""Each one merge after another, so that they get rarer from left to right."""


def merges(words):
    pairs = []
    for word in words:
        letters = [*word[:-1], word[-1] + "</w>"]
        for end in range(1, len(letters)):
            pair = ("".join(letters[:end]), letters[end])
            if pair not in pairs:
                pairs.append(pair)
    return pairs


@pytest.fixture(scope="module")
def tokenizer():
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    pairs = merges(WORDS)
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += [first + second for first, second in pairs] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=pairs)


@pytest.fixture(scope="module")
def embedding(tokenizer):
    table = torch.randn((len(tokenizer), 8), generator=torch.Generator().manual_seed(0))
    vocab = tokenizer.get_vocab()
    table[vocab["tok</w>"]] *= 20
    table[vocab["sks</w>"]] = table[vocab["dog</w>"]] + 0.01
    return table


def texts(judged):
    return {reason.text: reason.verdict for reason in judged.reasons}


def test_the_last_quarter_of_the_merges_is_searched_and_words_without_vowels_come_first(tokenizer):
    found = Vocabulary(tokenizer).rare(10)
    # 22 merges; the last words are sun, qvz, tok, and of these zzz is one before.
    assert [(one.word, one.verdict) for one in found] == [("qvz", "good"), ("tok", "fair"), ("sun", "fair")]
    assert found[1].lateness == 1
    assert found[0].norm is None
    assert found[0].near == ()
    assert [one.word for one in Vocabulary(tokenizer).rare(1)] == ["qvz"]


@pytest.mark.parametrize(
    ("word", "verdict", "said"),
    [
        ("dog", "bad", "merge 4 of 22: early, so common"),
        ("sks", "fair", "merge 14 of 22: neither early nor late"),
        ("zzz", "fair", "one letter repeated, which people write and mean something by"),
        ("qvz", "good", "no vowel: hardly a word"),
        ("tok", "fair", "can be spoken: may be a word or a name somewhere"),
        ("xxy5", "bad", "the tokenizer cuts it into 4 tokens: x x y 5. Each has a meaning of its own"),
        ("red dog", "bad", "the tokenizer cuts it into 2 tokens: red dog. Each has a meaning of its own"),
        ("x", "bad", "a single sign, which is part of countless words"),
        ("7", "bad", "not only letters a to z: hard to type, or joined to what stands beside it"),
    ],
)
def test_a_word_is_judged_with_reasons(tokenizer, word, verdict, said):
    judged = Vocabulary(tokenizer).judge(word)
    assert judged.verdict == verdict
    assert said in texts(judged)
    assert texts(judged)[said] == verdict
    assert (judged.token is None) == ("cuts it" in said)


def test_a_word_is_judged_as_the_tokenizer_reads_it(tokenizer):
    assert Vocabulary(tokenizer).judge(" QvZ ") == Vocabulary(tokenizer).judge("qvz")
    assert Vocabulary(tokenizer).judge("xxy5").pieces == ("x", "x", "y</w>", "5</w>")


def test_embeddings_are_evidence(tokenizer, embedding):
    vocabulary = Vocabulary(tokenizer, embedding)
    large, ordinary = vocabulary.judge("tok"), vocabulary.judge("qvz")
    assert texts(large)["unusually large embedding: trained on much"] == "fair"
    assert texts(ordinary)["embedding of ordinary size"] == "good"
    assert large.norm_share == pytest.approx(10 / 11)
    assert ordinary.norm == pytest.approx(embedding[ordinary.token].norm().item())
    near = vocabulary.judge("sks").near
    assert len(near) == 3
    assert near[0][0] == "dog"
    assert near[0][1] == pytest.approx(1, abs=1e-2)
    assert vocabulary.judge("sks").near == near
    assert vocabulary.rare(1)[0].near == ordinary.near != ()


def test_the_embedding_is_read_alone(tiny_base, tmp_path):
    from inlay.base.families import load_base
    from tests.tiny import make_tiny_checkpoint

    settings = BaseSettings(model=str(tiny_base))
    expected = load_base(settings).text_encoder.get_input_embeddings().weight
    embedding = read_embedding(locate(settings))
    assert embedding is not None
    assert torch.equal(embedding, expected)
    checkpoint = read_embedding(Location("checkpoint", make_tiny_checkpoint(tmp_path)))
    assert checkpoint is not None
    assert torch.equal(checkpoint, expected)
    second = read_embedding(Location("checkpoint", make_tiny_checkpoint(tmp_path / "second", second=True)))
    assert second is not None
    assert second.shape == (len(expected), 64)
    assert read_embedding(locate(BaseSettings(model="sd-v1.4"), weights=False)) is None
