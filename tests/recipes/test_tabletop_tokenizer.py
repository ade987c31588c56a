"""The embedded base's tokenizer: words of the world are single tokens, and nothing cannot be written."""

import pytest

from inlay.data.tabletop import World, vocabulary


@pytest.fixture
def tokenizer(recipe_folder):
    import tokenizer

    return tokenizer


def test_words_of_the_world_and_rare_words_are_single_tokens(tokenizer):
    made = tokenizer.build()
    words = [*vocabulary(), *tokenizer.rare_words(), *tokenizer.COMMON.split()]
    assert [word for word in words if len(made.tokenize(word)) != 1] == []


def test_rare_words_are_many_and_no_words_of_the_world(tokenizer):
    rare = tokenizer.rare_words()
    assert len(set(rare)) == len(rare) >= 100
    assert not set(rare) & {*vocabulary(), *tokenizer.COMMON.split()}


def test_captions_fit(tokenizer):
    made, world = tokenizer.build(), World("test")
    captions = [world.describe(index)[1] for index in range(500)]
    assert max(len(ids) for ids in made(captions).input_ids) <= tokenizer.LENGTH


def test_any_text_is_encoded_and_comes_back(tokenizer):
    made = tokenizer.build()
    ids = made("two Things: a qqfoo ünder 12!").input_ids
    assert made.decode(ids, skip_special_tokens=True) == "two things : a qqfoo ünder 1 2 !"
    assert (ids[0], ids[-1]) == (made.bos_token_id, made.eos_token_id)


def test_saved_tokenizer_loads_with_plain_transformers(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    tokenizer.save(tokenizer.build(), tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "a sks toy on a wooden table"
    assert loaded(text).input_ids == tokenizer.build()(text).input_ids
    assert loaded.model_max_length == tokenizer.LENGTH
    assert (tmp_path / "merges.txt").read_text().startswith("#version")


def test_a_later_word_does_not_change_how_an_earlier_one_is_built(tokenizer):
    merges = tokenizer.learn(["at", "cat", "ca", "tac"])
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    for word in ("at", "cat", "ca", "tac"):
        assert tokenizer.merge([*word[:-1], word[-1] + "</w>"], ranks) == [word + "</w>"]
