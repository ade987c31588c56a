"""The rendered world "tabletop": lit things on a surface, with exact captions and known truth."""

from inlay.data.tabletop.export import write_folder
from inlay.data.tabletop.prompts import class_prompt, evaluation_prompts
from inlay.data.tabletop.scene import Design, Scene, Thing
from inlay.data.tabletop.subjects import SUBJECTS
from inlay.data.tabletop.vocabulary import vocabulary
from inlay.data.tabletop.world import DOMAINS, Picture, World

__all__ = [
    "DOMAINS",
    "SUBJECTS",
    "Design",
    "Picture",
    "Scene",
    "Thing",
    "World",
    "class_prompt",
    "evaluation_prompts",
    "vocabulary",
    "write_folder",
]
