"""Write `frozen.json`: what a few pictures of pretraining look like, as coarse mean colours.

Run it only when a new base is trained on a changed world: `python tests/data/tabletop/freeze.py`.
"""

import json
from pathlib import Path

from inlay.data.tabletop import World

if __name__ == "__main__":
    table = []
    for part, indices in (("train", (*range(16), 999, 54_321, 999_999)), ("test", (*range(8), 99_999))):
        for index in indices:
            picture = World(part)[index]
            quarters = picture.image.reshape(2, 32, 2, 32, 3).mean((1, 3)).round(1).tolist()
            table.append({"part": part, "index": index, "caption": picture.caption, "quarters": quarters})
    text = "[\n" + ",\n".join(json.dumps(entry) for entry in table) + "\n]\n"
    Path(__file__).with_name("frozen.json").write_text(text)
