"""Which prompts a model is measured by, and their counterparts that name the class without the new word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inlay.data.settings import DataSettings
from inlay.data.tabletop import SUBJECTS, class_prompt, evaluation_prompts, vocabulary
from inlay.errors import ConfigError
from inlay.run.config import JobConfig
from inlay.run.evaluation.settings import EvaluateSettings

TOY = "a photo of a toy"
"""What the rendered world calls its subjects' class."""
SUBJECT = "tabletop:subject/"


@dataclass(frozen=True)
class Question:
    """A prompt, and what to ask the base instead."""

    prompt: str
    plain: str
    """The prompt without the new word, which a base cannot know; the prompt itself where it has none."""

    @property
    def named(self) -> bool:
        """Whether the prompt names a subject by a new word."""
        return self.prompt != self.plain


@dataclass(frozen=True)
class Questions:
    """What a model is asked."""

    asked: tuple[Question, ...]
    class_prompts: tuple[str, ...]
    """Prompts of the class; empty where nobody said what it is called."""
    why_none: str = ""
    """Why there are no class prompts."""
    trained: tuple[Question, ...] = ()
    """The captions of the training pictures; empty where they are not known."""

    @property
    def prompts(self) -> list[str]:
        """The prompts."""
        return [question.prompt for question in self.asked]

    @property
    def plain(self) -> list[str]:
        """The prompts without the new word."""
        return [question.plain for question in self.asked]


def read_prompts(path: Path) -> tuple[str, ...]:
    """Return the prompts of a file: one a line, or JSON lines with the key `prompt`.

    Raises:
        ConfigError: the file cannot be read, or holds none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts {path}: cannot be read: {error}") from None
    lines = [line for line in lines if line]
    if path.suffix == ".jsonl":
        try:
            lines = [str(json.loads(line)["prompt"]) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--prompts {path}: each line must be a JSON object with the key `prompt`: {error}"
            ) from None
    if not lines:
        raise ConfigError(f"--prompts {path}: no prompt in it")
    return tuple(dict.fromkeys(lines))


def new_word(prompt: str, of_class: str) -> str:
    """Return the words that a prompt has and its class's prompt lacks, for instance "sks"; empty where they are no row.

    Args:
        prompt: for instance "a photo of a sks toy".
        of_class: for instance "a photo of a toy".
    """
    words, others = prompt.split(), of_class.split()
    more = len(words) - len(others)
    for first in range(len(others) + 1) if more > 0 else ():
        if words[:first] + words[first + more :] == others:
            return " ".join(words[first : first + more])
    return ""


def without(prompt: str, word: str) -> str:
    """Return a prompt without a word, or row of words."""
    words, gone = prompt.split(), word.split()
    for first in range(len(words) - len(gone) + 1 if gone else 0):
        if words[first : first + len(gone)] == gone:
            return " ".join(words[:first] + words[first + len(gone) :])
    return prompt


def learned_word(data: DataSettings) -> str:
    """Return the new word that a run's pictures are called by; empty where nothing tells it from the class."""
    if data.prompt is None:
        return ""
    if data.prior is not None:
        return new_word(data.prompt, data.prior.prompt)
    if data.source.startswith(SUBJECT):
        known = set(vocabulary())
        return " ".join(word for word in data.prompt.split() if word not in known)
    return ""


def questions(settings: EvaluateSettings, config: JobConfig | None, captions: Sequence[str] = ()) -> Questions:
    """Return what to ask a model.

    Args:
        settings: stated prompts win over what follows from the run.
        config: the run that made the model, where one did.
        captions: of its pictures, where they have their own; the first four are the last resort as prompts.

    Raises:
        ConfigError: there is nothing to ask, or the rendered world's sentences are for its subjects only.
    """
    word = learned_word(config.data) if config is not None else ""
    subject = config.data.source.removeprefix(SUBJECT) if config and config.data.source.startswith(SUBJECT) else ""
    stated = settings.prompts
    if stated == "dreambooth" or (stated is None and subject and word):
        if subject not in SUBJECTS or not word:
            raise ConfigError(
                "prompts=dreambooth asks for a subject of the rendered world in new scenes; the run must be tuned on "
                f"{SUBJECT}NAME with data.prompt such as 'a photo of a sks toy'; give the prompts themselves"
            )
        prompts: Sequence[str] = [template.replace("{token}", word) for template in evaluation_prompts(subject)]
        plain = [class_prompt(template) for template in evaluation_prompts(subject)]
    else:
        prompts = stated or _of_run(config) or list(dict.fromkeys(captions))[:4]
        plain = [without(prompt, word) for prompt in prompts]
    if not prompts:
        raise ConfigError("there is nothing to draw: give prompts, with --prompt or --prompts FILE")
    asked = tuple(Question(one, other) for one, other in zip(prompts, plain, strict=True))
    told = (config.data.prompt,) if config is not None and config.data.prompt else tuple(dict.fromkeys(captions))
    trained = tuple(Question(one, without(one, word)) for one in told)
    if settings.class_prompts is not None:
        return Questions(asked, settings.class_prompts, "", trained)
    named = tuple(dict.fromkeys(question.plain for question in asked if question.named))
    if named:
        return Questions(asked, named, "", trained)
    why = "no prompt names a subject by a new word that could be left out; give class_prompts"
    return Questions(asked, (), why, trained)


def _of_run(config: JobConfig | None) -> Sequence[str]:
    if config is None:
        return ()
    return config.preview.prompts or ((config.data.prompt,) if config.data.prompt else ())
