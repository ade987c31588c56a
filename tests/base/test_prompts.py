import pytest
import torch

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.prompts import Prompts, tokenizer_here
from inlay.base.settings import BaseSettings
from inlay.errors import ConfigError


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    settings = BaseSettings(model=str(tiny_base))
    location = locate(settings)
    return tokenizer_here(settings, location, read_architecture(settings, location))


TEXTS = ["a photo of a Dog", "", "the dog's  red ball!", "x y z " * 40, "<new> is not a word", "<|endoftext|> a dog"]


@pytest.mark.parametrize("length", [77, 8])
def test_prompts_without_new_words_have_the_tokenizers_own_ids(tokenizer, length):
    expected = tokenizer(TEXTS, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    prompts = Prompts(tokenizer, length)
    assert torch.equal(prompts.tokenize(TEXTS), expected)
    prompts.add(lambda: {"<other>": (9999,)})
    assert torch.equal(prompts.tokenize(TEXTS), expected)


def test_new_words_are_found_wherever_they_stand(tokenizer):
    prompts = Prompts(tokenizer, 77)
    dog, ball = (tokenizer(word, add_special_tokens=False).input_ids[0] for word in ("dog", "ball"))
    words = {"<new>": (1000, 1001), "<new>er": (1002,)}
    prompts.add(lambda: words)
    prompts.add(lambda: {"*": (1003,)})
    found = prompts.tokens(["dog <new> ball", "dog<NEW>, ball", "<new>er*", "<new><new>", "ball"])
    comma = tokenizer(",", add_special_tokens=False).input_ids[0]
    assert found == [
        [dog, 1000, 1001, ball],
        [dog, 1000, 1001, comma, ball],
        [1002, 1003],
        [1000, 1001, 1000, 1001],
        [ball],
    ]
    words["<new>"] = (7,)  # asked anew at every prompt
    assert prompts.tokens(["<new>"]) == [[7]]
    del words["<new>"]
    assert prompts.tokens(["<new>"]) == [tokenizer("<new>", add_special_tokens=False).input_ids]


def test_new_words_take_room(tokenizer):
    prompts = Prompts(tokenizer, 6)
    prompts.add(lambda: {"<new>": (1000, 1001, 1002)})
    assert prompts.overlong(["dog <new>", "dog <new> ball", "dog dog dog dog"]) == ["dog <new> ball"]
    row = prompts.tokenize(["dog <new> ball"])[0].tolist()
    assert row[2:] == [1000, 1001, 1002, tokenizer.eos_token_id]


def test_padding_is_the_tokenizers(tokenizer):
    before = tokenizer.pad_token
    try:
        tokenizer.pad_token = "!"
        assert Prompts(tokenizer, 5).tokenize(["dog"])[0, -1].item() == tokenizer.convert_tokens_to_ids("!")
    finally:
        tokenizer.pad_token = before


def test_a_tokenizer_that_is_not_here(tiny_base, tmp_path):
    settings = BaseSettings(model="sd-v1.4")
    location = locate(settings, weights=False)
    architecture = read_architecture(settings, location)
    assert tokenizer_here(settings, location, architecture) is None
    elsewhere = settings.model_copy(update={"tokenizer": str(tiny_base / "tokenizer")})
    assert tokenizer_here(elsewhere, location, architecture).bos_token == "<|startoftext|>"
    empty = settings.model_copy(update={"tokenizer": str(tmp_path)})
    with pytest.raises(ConfigError, match=f"no (tokenizer|vocabulary of a tokenizer) at {tmp_path}"):
        tokenizer_here(empty, location, architecture)
