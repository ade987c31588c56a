import json
from typing import Annotated, Literal

import pytest
from pydantic import Field

from inlay.cli.main import main
from inlay.cli.methods import describe
from inlay.methods import METHODS
from inlay.settings import Settings


class Where(Settings):
    part: str = "unet"


class Method(Settings):
    """Add something small.

    More about it (Nobody, 2020).
    """

    name: Literal["try"] = "try"
    rank: Annotated[int, Field(gt=0, le=512)] = 8
    """Rank of the addition,
    over two lines."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    targets: tuple[str, ...] = ("to_q",)
    mode: Literal["a", "b"]
    where: Where = Where()


def test_a_method_is_described_by_its_docstring_and_fields():
    described = describe(Method)
    assert described["summary"] == "Add something small."
    assert described["description"].endswith("More about it (Nobody, 2020).")
    settings = {setting.pop("key"): setting for setting in described["settings"]}
    assert settings == {
        "rank": {
            "type": "int > 0 and <= 512",
            "required": False,
            "default": 8,
            "description": "Rank of the addition, over two lines.",
        },
        "alpha": {"type": "float > 0 or null", "required": False, "default": None, "description": ""},
        "targets": {"type": "list of str", "required": False, "default": ["to_q"], "description": ""},
        "mode": {"type": "'a' or 'b'", "required": True, "default": None, "description": ""},
        "where": {"type": "Where", "required": False, "default": {"part": "unet"}, "description": ""},
    }


def test_every_method_is_listed(capsys):
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in METHODS)
    assert main(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_documented(name, capsys):
    assert main(["methods", name, "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["name"] == name
    assert described["summary"].endswith(".")
    assert [setting["key"] for setting in described["settings"] if not setting["description"]] == []
    assert main(["methods", name]) == 0
    shown = capsys.readouterr().out
    assert all(setting["key"] in shown for setting in described["settings"])


def test_an_unknown_method_is_refused_with_the_nearest(capsys):
    assert main(["methods", "hypernetwrok"]) == 2
    message = capsys.readouterr().err
    assert "no method 'hypernetwrok'; there are " in message
    assert "did you mean 'hypernetwork'?" in message
