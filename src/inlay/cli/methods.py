"""``inlay methods``: the tuning methods, and the settings of each."""

from __future__ import annotations

import inspect
import re
from json import dumps
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from inlay.cli.console import console, emit_json, print_table
from inlay.errors import ConfigError
from inlay.run.explain import nearest


def command(
    name: Annotated[
        str | None, typer.Argument(help="The method whose settings to show; all methods without one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the tuning methods, or the settings of one with their defaults.

    A setting is set in a run file under `method:`, or on the command line: `inlay tune run.yaml method.rank=8`.
    """
    from inlay.methods import METHODS

    if name is None:
        summaries = {method: _summary(model) for method, model in METHODS.items()}
        if json:
            emit_json([{"name": method, "summary": summary} for method, summary in summaries.items()])
        else:
            print_table(["method", "what it does"], summaries.items())
            console.print("The settings of one: inlay methods NAME")
        return
    if name not in METHODS:
        message = f"no method {name!r}; there are {', '.join(METHODS)}"
        raise ConfigError("; ".join(filter(None, [message, nearest(name, METHODS)])))
    described = describe(METHODS[name])
    if json:
        emit_json({"name": name, **described})
    else:
        _print(name, described)


def describe(model: type[BaseModel]) -> dict[str, Any]:
    """Return a method's description and its settings, as JSON-ready data."""
    return {
        "summary": _summary(model),
        "description": inspect.getdoc(model) or "",
        "settings": [
            {
                "key": key,
                "type": _type(field),
                "required": field.is_required(),
                "default": _default(field),
                "description": " ".join((field.description or "").split()),
            }
            for key, field in model.model_fields.items()
            if key != "name"
        ],
    }


def _summary(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0]


def _type(field: FieldInfo) -> str:
    """Return a field's type as a user would write it, without module names, and its bounds: "int > 0"."""
    annotation: Any = field.annotation
    plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    name = annotation.__name__ if plain else re.sub(r"(?:\w+\.)+(?=\w)", "", str(annotation))
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{signs[bound]} {getattr(limit, bound)}"
        for limit in field.metadata
        for bound in signs
        if hasattr(limit, bound)
    ]
    return " ".join([name, ", ".join(bounds)]).strip()


def _default(field: FieldInfo) -> Any:
    """Return a field's default in JSON's terms, or None when it must be set."""
    default = field.get_default(call_default_factory=True)
    return None if default is PydanticUndefined else to_jsonable_python(default)


def _print(name: str, described: dict[str, Any]) -> None:
    console.print(f"{name}: {described['description']}\n")
    if not described["settings"]:
        console.print("It has no settings.")
        return
    print_table(
        ["setting", "type", "default", "meaning"],
        [
            (
                setting["key"],
                setting["type"],
                "must be set" if setting["required"] else dumps(setting["default"]),
                setting["description"],
            )
            for setting in described["settings"]
        ],
    )
    example = next(iter(described["settings"]))["key"]
    console.print(f"In a run file:          method: {{name: {name}, {example}: ...}}")
    console.print(f"On the command line:    inlay tune run.yaml method.{example}=...")
