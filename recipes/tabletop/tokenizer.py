"""Makes the tokenizer of the embedded base: a small byte-level BPE in which every word of the world is one token."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

from pictures import BUILD
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from inlay.data.tabletop import vocabulary

LENGTH = 32
"""Tokens of a caption, start and end included."""
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
COMMON = """
about after again all along also always am another any are around as away back bad be beautiful because before behind
below beside best better between but city clay close cold colour color colours come could crystal cute dark day deep
detailed different do dog cat down draw drawn dry each early easy edge empty end even every far fast few field fine
fire first five flat flower flowers for forest four fox front full fun funny garden gave get glass go gold good gray
great grey ground had half hand happy hard has have he head heavy her here high hill his holding home hot how huge i
ice if image into it its just keep kind know last late less let life like line little long look looks lot low make
man many me metal middle mirror more most mountain much must my near never new nice no not nothing now number object
off old one only open or other our out outside over own paint painted painting paper part pattern people person piece
place plant plastic portrait pretty put rain rainy really render rendered river road rock room round rusty same say
scene sea season see set shadow shape shiny short show shown shows side silver simple sit sits sitting sky so soft
some something spring standing stands star stars stone street strong style summer sun sunny take tall than that their
them then these they thin thing think this three through time tiny today together too toward toys true turn under up
us use very view walk wall warm was water watercolor way we well were wet what when where which while who wide wild
will wind window winter without woman word work world year you young your
"""
"""Frequent English words beside the world's own; they cost one row of the embedding each."""
FAMILIAR_RARE = ("sks", "zwx", "qiv", "ohwx")
"""Rare tokens that users of other tools know, or that the documentation uses."""


def rare_words() -> list[str]:
    """Return 132 short strings that are no English words, as names for subjects and styles to learn."""
    made = ("".join(parts) for parts in itertools.product("qxzvj", "aeiou", "vkzxqj"))
    spoken = {"vex", "vox", "zax"}
    found = [word for word in made if word not in spoken]
    return [*FAMILIAR_RARE, *[word for word in found if word not in FAMILIAR_RARE][:128]]


def merge(word: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Return a word's pieces after byte-pair encoding with the given merges (Sennrich et al. 2016, algorithm 1)."""
    while len(word) > 1:
        pairs = [(ranks[pair], place) for place, pair in enumerate(itertools.pairwise(word)) if pair in ranks]
        if not pairs:
            break
        place = min(pairs)[1]
        word = [*word[:place], word[place] + word[place + 1], *word[place + 2 :]]
    return word


def learn(words: list[str]) -> list[tuple[str, str]]:
    """Return merges, in order, with which every word becomes one token.

    A later merge has the lower priority, so it cannot change how an earlier word is put together.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = merge([*word[:-1], word[-1] + "</w>"], ranks)
        while len(pieces) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return list(ranks)


def build() -> CLIPTokenizer:
    """Return the tokenizer."""
    words = [word for word in vocabulary() if word.isalpha()]
    extra = [word for word in COMMON.split() if word not in words]
    merges = learn([*words, *extra, *rare_words()])
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(one + two for one, two in merges), BEGIN, END]
    return CLIPTokenizer(
        vocab={token: place for place, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,
        model_max_length=LENGTH,
        unk_token=END,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
    )


def save(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write tokenizer.json, and the two files of older versions of transformers and of other programs."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Build and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUILD / "tokenizer")
    args = parser.parse_args()
    tokenizer = build()
    save(tokenizer, args.out)
    print(f"{len(tokenizer)} tokens, {len(rare_words())} of them rare words, in {args.out}")


if __name__ == "__main__":
    main()
