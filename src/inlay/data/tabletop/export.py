"""Parts of the world as ordinary folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path

from inlay.data.tabletop.prompts import class_prompt, evaluation_prompts
from inlay.data.tabletop.world import World
from inlay.errors import DataError


def write_folder(part: str, directory: str | Path, count: int | None = None) -> Path:
    """Write pictures of a part as PNG files, as a user's own would lie.

    Most parts get a `metadata.jsonl` with a line for each picture: `file_name`, `text` (the caption) and `scene`. A
    subject comes as someone brings their own pictures, without captions; its `prompts.jsonl` holds the 25
    evaluation prompts, each a `prompt` with "{token}" and the `class_prompt`.

    Args:
        part: as for `World`.
        directory: new or empty.
        count: how many pictures, from the first; all of a small part if left out, 1,000 at most.

    Returns:
        The directory.

    Raises:
        DataError: the part does not exist, the directory holds files, or the part has fewer pictures than `count`.
    """
    from PIL import Image

    world, directory = World(part), Path(directory)
    count = min(len(world), 1_000) if count is None else count
    if not 1 <= count <= len(world):
        raise DataError(f'count is {count}; part "{part}" of the tabletop world allows 1 to {len(world)}.')
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DataError(f"{directory} is not an empty directory. Name a new one: nothing is overwritten.")
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        picture = world[index]
        name = f"{index:06d}.png"
        Image.fromarray(picture.image).save(directory / name)
        lines.append({"file_name": name, "text": picture.caption, "scene": picture.scene.to_dict()})
    kind, _, subject = part.partition("/")
    table = "metadata.jsonl"
    if kind == "subject":
        table = "prompts.jsonl"
        lines = [{"prompt": text, "class_prompt": class_prompt(text)} for text in evaluation_prompts(subject)]
    (directory / table).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return directory
