"""What models are asked, and how the new word is told from its class."""

import pytest

from inlay.data.settings import DataSettings
from inlay.data.tabletop import class_prompt, evaluation_prompts
from inlay.errors import ConfigError
from inlay.run.config import RunConfig
from inlay.run.evaluation.prompts import learned_word, new_word, questions, read_prompts, without
from inlay.run.evaluation.settings import EvaluateSettings
from inlay.run.load import validate


def run(**data):
    return validate(RunConfig, {"base": "tabletop", "data": data, "method": "lora", "train": {"steps": 1}})


@pytest.mark.parametrize(
    ("prompt", "of_class", "word"),
    [
        ("a photo of a sks toy", "a photo of a toy", "sks"),
        ("a photo of sks red dog", "a photo of dog", "sks red"),
        ("sks dog", "dog", "sks"),
        ("a photo of sks", "a photo of", "sks"),
        ("a photo of a toy", "a photo of a toy", ""),
        ("a picture of a sks toy", "a photo of a toy", ""),
    ],
)
def test_the_new_word_is_what_the_class_lacks(prompt, of_class, word):
    assert new_word(prompt, of_class) == word


def test_a_word_is_taken_out_of_a_sentence_as_a_whole():
    assert without("a sks toy on the grass", "sks") == "a toy on the grass"
    assert without("a sksy toy", "sks") == "a sksy toy"
    assert without("a toy", "") == "a toy"


def test_subjects_of_the_world_are_asked_the_25_sentences():
    config = run(source="tabletop:subject/momo", prompt="a photo of a zwx toy")
    assert learned_word(config.data) == "zwx"
    found = questions(EvaluateSettings(), config)
    assert found.prompts == [template.replace("{token}", "zwx") for template in evaluation_prompts("momo")]
    assert found.plain == [class_prompt(template) for template in evaluation_prompts("momo")]
    assert found.class_prompts == tuple(found.plain)
    assert len(found.prompts) == 25


def test_the_prior_says_what_the_class_is_called():
    prior = {"prompt": "a photo of a dog"}
    config = run(source="photos", prompt="a photo of a sks dog", prior=prior)
    stated = EvaluateSettings(prompts=("a sks dog in the snow", "a photo of a dog"))
    found = questions(stated, config)
    assert found.plain == ["a dog in the snow", "a photo of a dog"]
    assert found.class_prompts == ("a dog in the snow",)  # the other one names no subject


def test_without_a_class_the_questions_about_it_have_a_reason():
    found = questions(EvaluateSettings(prompts=("a sks dog",)), run(source="photos", prompt="a photo of sks dog"))
    assert found.class_prompts == ()
    assert "class_prompts" in found.why_none
    stated = EvaluateSettings(prompts=("a sks dog",), class_prompts=("a dog",))
    assert questions(stated, None).class_prompts == ("a dog",)


def test_the_protocol_is_for_subjects_of_the_world():
    with pytest.raises(ConfigError, match="tabletop:subject/NAME"):
        questions(EvaluateSettings(prompts="dreambooth"), run(source="photos", prompt="a photo of sks dog"))
    with pytest.raises(ConfigError, match="nothing to draw"):
        questions(EvaluateSettings(), None)


def test_captions_are_the_last_resort():
    config = run(source="photos")
    assert questions(EvaluateSettings(), config, ("a", "b", "a", "c", "d", "e")).prompts == ["a", "b", "c", "d"]
    assert learned_word(DataSettings(source="photos")) == ""


def test_prompt_files(tmp_path):
    (tmp_path / "lines.txt").write_text("a red ball\n\n  a blue mug \na red ball\n")
    assert read_prompts(tmp_path / "lines.txt") == ("a red ball", "a blue mug")
    (tmp_path / "lines.jsonl").write_text('{"prompt": "a red ball", "class_prompt": "x"}\n')
    assert read_prompts(tmp_path / "lines.jsonl") == ("a red ball",)
    for name, text, message in (
        ("bad.jsonl", '{"text": "a"}', "key `prompt`"),
        ("empty.txt", "\n", "no prompt"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_prompts(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompts(tmp_path / "absent.txt")
