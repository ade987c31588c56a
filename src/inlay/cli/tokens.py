"""``inlay tokens``: rare words of a base's vocabulary, to name a subject by, and why a word is one or not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import console, emit_json, print_table
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from inlay.base.rare_tokens import Judged, Vocabulary

STYLES = {"good": "green", "fair": "yellow", "bad": "red"}


def command(
    base: Annotated[
        str, typer.Argument(help="Whose vocabulary: tabletop, a directory, a hub id, a checkpoint.")
    ] = "tabletop",
    check: Annotated[
        list[str] | None, typer.Option("--check", "-c", help="Say whether this word is good, and why; repeatable.")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many words to find.")] = 16,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="A tokenizer's directory, where the base has none on this disk.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Find rare words of a base's vocabulary, to name a subject by.

    A good one is a single token, can be typed, and means next to nothing yet: `a photo of sks dog`.
    """
    if any(not word.strip() for word in check or ()):
        raise ConfigError("--check: give a word")
    vocabulary = _vocabulary(base, tokenizer)
    judged = [vocabulary.judge(word) for word in check] if check else vocabulary.rare(count)
    if json:
        emit_json([dataclasses.asdict(one) for one in judged])
    elif check:
        for one in judged:
            _explain(one)
    else:
        _list(judged)


def _vocabulary(base: str, tokenizer: str | None) -> Vocabulary:
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.base.architecture import read_architecture
    from inlay.base.locate import locate
    from inlay.base.prompts import tokenizer_here
    from inlay.base.rare_tokens import Vocabulary, read_embedding
    from inlay.base.settings import BaseSettings

    settings = BaseSettings(model=base, tokenizer=tokenizer)
    location = locate(settings, weights=False)
    found = tokenizer_here(settings, location, read_architecture(settings, location))
    if found is None:
        where = f"no directory {tokenizer}" if tokenizer else f"{base} has none on this disk"
        raise ConfigError(
            f"no tokenizer: {where}; give --tokenizer a directory with tokenizer.json, or with vocab.json and "
            "merges.txt"
        )
    return Vocabulary(found, read_embedding(location))


def _list(judged: list[Judged]) -> None:
    if not judged:
        console.print("This vocabulary has no late token of three to five letters.")
        return
    common = [reason.text for reason in judged[0].reasons if all(reason in one.reasons for one in judged)]
    rows = [
        (
            one.word,
            one.verdict,
            one.token,
            f"{one.lateness:.0%}",
            "" if one.norm is None else f"{one.norm:.3f}",
            _near(one),
            "; ".join(reason.text for reason in one.reasons if reason.text not in common),
        )
        for one in judged
    ]
    print_table(["word", "verdict", ">token", ">late", ">norm", "nearest words (cosine)", "why"], rows)
    console.print(f"All of them: {'; '.join(common)}.", soft_wrap=True)
    console.print("Late: share of the vocabulary's merges that were made before it. Norm: length of the embedding.")
    console.print(f"More about one:   inlay tokens --check {judged[0].word}")
    console.print(f"In a run file:    data: {{prompt: a photo of {judged[0].word} dog}}")


def _explain(one: Judged) -> None:
    console.print(f"{one.word}: {one.verdict}", style=STYLES[one.verdict])
    for reason in one.reasons:
        sign = {"good": "+", "fair": "~", "bad": "-"}[reason.verdict]
        console.print(f"  {sign} {reason.text}", soft_wrap=True)
    if one.norm is not None and one.norm_share is not None:
        console.print(f"    embedding: length {one.norm:.3f}, longer than that of {one.norm_share:.0%} of the words")
        console.print(f"    nearest words: {_near(one)}")
    if one.token is None:
        console.print(
            "    It can still be a word of its own, with a vector that is learned: method textual_inversion.",
            soft_wrap=True,
        )
    console.print()


def _near(one: Judged) -> str:
    return ", ".join(f"{word} {cosine:.2f}" for word, cosine in one.near)
