import re

import pytest

from inlay.data.tabletop import SUBJECTS, World, class_prompt, evaluation_prompts, vocabulary
from inlay.errors import DataError


@pytest.mark.parametrize("subject", SUBJECTS)
def test_25_different_prompts_with_one_token_each(subject):
    prompts = evaluation_prompts(subject)
    assert len(set(prompts)) == len(prompts) == 25
    assert all(prompt.count("{token}") == 1 for prompt in prompts)


def test_prompts_use_words_of_pretraining_only():
    world = World()
    seen = set(" ".join(world.describe(index)[1] for index in range(3000)).split())
    for prompt in evaluation_prompts("pip"):
        assert set(class_prompt(prompt).split()) <= seen & set(vocabulary())


def test_class_prompt_has_no_token():
    assert class_prompt("a purple {token} toy") == "a purple toy"
    assert not any(re.search(r"[{}]|  ", class_prompt(prompt)) for prompt in evaluation_prompts("zed"))


def test_unknown_subject_names_the_known_ones():
    with pytest.raises(DataError, match=r"nobody.*pip, rolo"):
        evaluation_prompts("nobody")
