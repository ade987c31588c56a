from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from inlay.errors import ArtifactError, TargetError
from inlay.methods import TextualInversion
from inlay.methods.textual_inversion import extensions
from tests.contracts.bases import tiny

VOCABULARY = {"dog": [5], "red": [6], "ball": [7], "sks": [8], "reddish": [6, 9]}


def tokenize(text: str) -> list[int]:
    return VOCABULARY.get(text, [1, 2, 3])


def table(components) -> torch.Tensor:
    return components["text_encoder"].get_input_embeddings().weight


def vectors(attachment) -> torch.Tensor:
    [parameter] = attachment.parameters().values()
    return parameter.detach()


def test_the_text_encoder_reads_the_vectors_where_the_word_stands():
    components = tiny()
    encoder = components["text_encoder"]
    attachment = TextualInversion(vectors=2, init="dog red").attach(components)
    attachment.read(tokenize)
    rows = len(table(components))
    assert attachment.words == {"<new>": range(rows, rows + 2)}
    ids = torch.tensor([[3, rows, rows + 1, 4]])
    assert torch.equal(encoder(ids)[0], encoder(torch.tensor([[3, 5, 6, 4]]))[0])
    assert encoder.get_input_embeddings()(ids).shape == (1, 4, table(components).shape[1])


def test_it_is_as_large_as_its_vectors():
    for count in (1, 3):
        [parameter] = TextualInversion(vectors=count).attach(tiny()).parameters().values()
        assert parameter.shape == (count, 32)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"init": "dog"}, lambda rows: rows[[5]]),
        ({"init": "dog", "vectors": 2}, lambda rows: rows[[5, 5]]),
        ({"init": "dog red"}, lambda rows: rows[[5, 6]].mean(0, keepdim=True)),
        ({"init": "dog  red", "vectors": 2}, lambda rows: rows[[5, 6]]),
        ({"init": "dog red ball", "vectors": 2}, lambda rows: rows[[5, 6, 7]].mean(0, keepdim=True).expand(2, -1)),
        ({}, lambda rows: rows.mean(0, keepdim=True)),
    ],
)
def test_where_the_vectors_begin(settings, expected):
    components = tiny()
    attachment = TextualInversion(**settings).attach(components)
    attachment.read(tokenize)
    assert torch.equal(vectors(attachment), expected(table(components)))


def test_what_is_drawn_has_the_deviation_that_is_asked_for():
    components = tiny()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attachment = TextualInversion(vectors=70, init="dog", std=0.5).attach(components)
    attachment.read(tokenize)
    noise = vectors(attachment) - table(components)[5]
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.05)


def test_an_optimizer_with_weight_decay_moves_no_row_of_the_base():
    components = tiny()
    encoder = components["text_encoder"]
    before = table(components).detach().clone()
    attachment = TextualInversion().attach(components)
    start = vectors(attachment).clone()
    optimizer = torch.optim.AdamW(attachment.parameters().values(), lr=0.1, weight_decay=0.5)
    [[first]] = attachment.words.values()
    for _ in range(3):
        encoder(torch.tensor([[3, first, 4]]))[0].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(table(components), before)
    assert table(components).grad is None
    assert (vectors(attachment) - start).abs().min() > 0.01


def grown() -> TextualInversion:
    return TextualInversion(vectors=3, init="dog red ball", grow_at=(2, 5))


def test_vectors_join_at_their_steps_and_begin_where_they_should():
    components = tiny()
    attachment = grown().attach(components)
    attachment.read(tokenize)
    counts = []
    for step in range(8):
        attachment.at_step(step)
        counts.append(len(attachment.words["<new>"]))
        joined = [0, 2, 5].index(step) if step in (0, 2, 5) else None
        if joined is not None:
            assert torch.equal(vectors(attachment)[joined], table(components)[5 + joined])
        with torch.no_grad():
            attachment.parameters()["<new>"].mul_(0.9)  # as weight decay does to all rows
    assert counts == [1, 1, 2, 2, 2, 3, 3, 3]
    torch.testing.assert_close(vectors(attachment)[2], table(components)[7] * 0.9**3)
    attachment.at_step(5)  # as when a run goes on from a checkpoint of that step
    torch.testing.assert_close(vectors(attachment)[1], table(components)[6] * 0.9**6)
    assert torch.equal(vectors(attachment)[2], table(components)[7])


def test_vectors_that_have_not_joined_are_not_saved_and_not_read():
    components = tiny()
    attachment = grown().attach(components)
    attachment.at_step(3)
    state = {name: value.clone() for name, value in attachment.state().items()}
    assert state["<new>"].shape == (2, 32)
    again = grown().attach(tiny())
    again.load(state)
    assert len(again.words["<new>"]) == 2
    assert torch.equal(again.state()["<new>"], state["<new>"])
    with pytest.raises(ArtifactError, match=r"another shape, such as <new>: \(2, 32\), here \(3, 32\)"):
        TextualInversion(vectors=3).attach(tiny()).load(state)
    for wrong in ({"<new>": torch.zeros(2, 16)}, {"<old>": torch.zeros(2, 32)}, {**state, "<old>": torch.zeros(1)}):
        with pytest.raises(ArtifactError, match=r"such as <(new|old)>"):
            again.load(wrong)
    assert torch.equal(again.state()["<new>"], state["<new>"])


def test_words_of_several_methods_have_ids_of_their_own():
    components = tiny()
    rows = len(table(components))
    one = TextualInversion(token="<a>", vectors=2).attach(components)
    two = TextualInversion(token="<b>").attach(components)
    assert two.words == {"<b>": range(rows + 2, rows + 3)}
    one.detach()
    three = TextualInversion(token="<c>").attach(components)
    assert three.words == {"<c>": range(rows + 3, rows + 4)}
    assert extensions(components["text_encoder"]) == [two, three]
    with two.disabled():
        assert two.words == {}
        with pytest.raises(IndexError):  # as the base says of what it does not have
            components["text_encoder"](torch.tensor([[rows + 2]]))
    with pytest.raises(TargetError, match=r"method\.token='<b>': another method of the stack brings this word"):
        TextualInversion(token="<b>").attach(components)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (TextualInversion(token="sks"), r"method.token='sks': .* has this word \(token 8\); .* such as '<sks>'"),
        (
            TextualInversion(init="reddish"),
            "method.init='reddish': .* cuts 'reddish' into 2 tokens; allowed are words of",
        ),
        (TextualInversion(init="dog zebra"), "method.init='dog zebra': .* cuts 'zebra' into 3 tokens"),
    ],
)
def test_words_that_the_vocabulary_rules_out_are_refused(method, message):
    attachment = method.attach(tiny())
    with pytest.raises(TargetError, match=message):
        attachment.read(tokenize)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token": "two words"}, "'two words' is no new word"),
        ({"token": "<Pip>"}, "in small letters"),
        ({"token": ""}, "is no new word"),
        ({"vectors": 2, "grow_at": (5, 9)}, "grow_at=.5, 9. with vectors=2: give rising steps, fewer than vectors"),
        ({"vectors": 4, "grow_at": (9, 5)}, "give rising steps"),
        ({"vectors": 4, "grow_at": (5, 5)}, "give rising steps"),
        ({"vectors": 0}, "greater than or equal to 1"),
        ({"init": ""}, "at least 1 character"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TextualInversion(**settings)
