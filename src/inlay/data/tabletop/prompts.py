"""Sentences that ask for a subject in new scenes, in the manner of the DreamBooth data set.

The list of 25 follows the kinds of prompt of Ruiz et al., "DreamBooth" (CVPR 2023), section 4.1: new contexts,
accessories, changes of property; every word but the token occurs in pretraining.
"""

from __future__ import annotations

from inlay.data.tabletop.subjects import SUBJECTS
from inlay.errors import DataError

_PROMPTS = (
    "a {token} toy on a wooden table",
    "a {token} toy on a marble table",
    "a {token} toy on grass",
    "a {token} toy on sand",
    "a {token} toy in the snow",
    "a {token} toy on a tiled floor",
    "a {token} toy on a blue cloth",
    "a {token} toy on a red carpet",
    "a {token} toy in the morning",
    "a {token} toy at noon",
    "a {token} toy on grass at sunset",
    "a {token} toy at night",
    "a {token} toy wearing a red hat",
    "a {token} toy wearing a yellow hat in the snow",
    "a {token} toy wearing a blue scarf",
    "a {token} toy with a green flag",
    "a red {token} toy",
    "a purple {token} toy",
    "a {token} toy seen from above",
    "a small {token} toy left of a red ball",
    "a {token} toy on a wooden table at sunset",
    "a {token} toy on a tiled floor at noon",
    "a large {token} toy on the left",
    "a small {token} toy on the right in the snow",
    "a yellow {token} toy",
)


def evaluation_prompts(subject: str) -> tuple[str, ...]:
    """Return 25 prompts for a subject, each with the place "{token}" for the word that was learned.

    Raises:
        DataError: no subject has this name.
    """
    if subject not in SUBJECTS:
        raise DataError(f'The tabletop world has no subject "{subject}". Allowed: {", ".join(SUBJECTS)}.')
    return _PROMPTS


def class_prompt(template: str) -> str:
    """Return a prompt that asks for any toy in the same scene, e.g. "a toy at night" for "a {token} toy at night"."""
    return template.replace("{token} ", "")
